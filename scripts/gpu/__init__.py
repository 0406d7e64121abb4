"""What ``scripts/gpu_check.py`` is made of.

`rows` and `suite` run as parts of `xpnn`; the others use the standard library alone, and are imported without `xpnn`.
"""
