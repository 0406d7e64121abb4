"""What the commands and `scripts/` share that needs the standard library alone."""
