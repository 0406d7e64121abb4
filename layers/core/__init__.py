"""What every layer is made of: the base class, parameters, buffers, and where they are stored."""
