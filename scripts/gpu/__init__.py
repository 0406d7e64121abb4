"""Parts of ``scripts/gpu_check.py``.

`run_checks` and `pytest_plugin` import `xpnn` and run in child processes; the others import only the standard library.
"""
