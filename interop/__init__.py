"""Exchange with other programs: files of weights."""
