"""The command ``xpnn``: information, training, prediction, parity and benchmarks."""
