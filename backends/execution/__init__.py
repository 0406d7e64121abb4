"""How work is shared and cut: worker threads, blocks of a batch, and workers that add up as one."""
