"""Reference implementations: layers and losses as plain Python loops, in NumPy and float64.

All algorithms of the library use the same code for the sizes of outputs and the positions of windows, and are compared
with the library's results in float64, so a mistake in these could go unnoticed. The loops share no code with the
library. Nothing is padded: cell ``k`` of window ``o`` reads cell ``o*stride + k*dilation - before`` of the input, if
there is such a cell. They are slow, and simple enough to check by eye.

Arguments that no layer accepts, such as a window larger than the padded input or one that covers only padding, raise
`ValueError` here too.
"""

from .layers import layer_results
from .losses import loss_results

__all__ = ["layer_results", "loss_results"]
