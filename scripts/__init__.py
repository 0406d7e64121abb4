"""Programs that a person runs from a checkout, and reads."""
