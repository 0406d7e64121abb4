"""Faster ways to compute an operation than the array path, one folder for each kind of device.

Layers ask `xpnn.backends.operations.Operations.prepare` by the operation's name and never learn who answered.
"""
