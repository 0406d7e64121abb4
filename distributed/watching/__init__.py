"""How the ranks of a group watch each other; see `xpnn.distributed.watching.watch`."""
