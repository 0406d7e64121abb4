"""The command ``xpnn``: information, the main job, its use, and benchmarks."""
