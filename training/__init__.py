"""How a model learns: optimizers, data in batches, the fit loop and its history."""
