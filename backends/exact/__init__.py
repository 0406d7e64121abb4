"""Exact numerics: the same bits on every backend."""
