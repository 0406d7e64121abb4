"""Sums of products over sliding windows."""
