"""A net in the folder of a run: its weights, the description to build it from, and images to measure it on."""
