"""Lets CuPy compute on a CUDA device that is emulated on the CPU. The README in the folder above describes it.

`install` is called in each process of a virtual environment by the file ``cuda_emulator.pth``, which
``cuda_emulator/install.py`` writes. With ``CUDA_EMULATOR=0`` in the environment CuPy is left alone.
"""

from .counting import counts
from .importing import install

__all__ = ["counts", "install"]
