"""Models of PyTorch become models of this library, and the other way."""
