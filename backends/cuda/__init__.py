"""What CuPy needs beyond its own functions: recorded graphs, cuBLAS, pinned memory."""
