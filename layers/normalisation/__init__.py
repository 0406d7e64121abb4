"""Batch, instance, group and layer normalisation; `norm` has the formulas and a table of what they have in common."""
