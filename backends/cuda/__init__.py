"""What CuPy needs beyond its own functions: operations, graphs, cuBLAS, pinned memory."""
