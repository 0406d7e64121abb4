"""Helpers for all other packages, which compute nothing and import none of them.

Checks of arguments, files, text for terminals, environment variables, the processor, the cores and the memory of the
process, and names for types.
"""
