"""Parts of ``scripts/exact_matrix.py``."""
