"""Sums of products: matrix products, and products of sliding windows with a matrix."""
