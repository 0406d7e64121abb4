"""A training step recorded once and replayed: what `Backend.compile` returns on a device that can record."""
