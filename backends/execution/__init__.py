"""Where and in what pieces work runs: worker threads, blocks of a batch, memory, and teams that share a batch."""
