"""Programs to run from a checkout, and to read; they are not part of the installed package."""
