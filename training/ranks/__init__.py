"""Training by several processes: what `fit` does differently with a group."""
