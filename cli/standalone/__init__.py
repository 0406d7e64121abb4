"""Parts of the commands and of `scripts/` that import only the standard library, for machines without packages."""
