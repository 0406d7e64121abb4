"""Optional compiled kernels that are faster than array functions: ``numba`` for CPUs, ``cuda`` for CuPy.

Layers get them from `xpnn.backends.operations.Operations`, as `kernels` and by `prepare`, and compute with array
functions if there are none.
"""
