"""The base class of layers, what it stores and where, and functions on arrays that several layers share."""
