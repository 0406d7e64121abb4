"""Optimizers: what all have in common, the rule of each, and gradient clipping."""
