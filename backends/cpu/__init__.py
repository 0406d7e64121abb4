"""What NumPy needs beyond its own functions: worker threads, blocks in a cache, products on one BLAS thread."""
