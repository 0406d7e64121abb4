"""Write a layer of your own: squeeze-and-excitation, which scales each channel by a factor computed from all channels.

You learn what a layer defines (its output, its gradient, its output's shape), how its gradient is checked against
finite differences, and that it then trains, and computes in exact numerics, like any other layer.

Needs scikit-learn, for its handwritten digits. Source: J. Hu et al., "Squeeze-and-excitation networks", 2018.
"""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import xpnn as nn
from xpnn import functional as f


class SqueezeExcitation(nn.Layer):
    """``y = s x``, ``s = sigmoid(expand relu(squeeze m))``, ``m`` the mean of each channel of ``x (N, C, H, W)``."""

    signature = (("channels", ...), ("hidden", ...))

    def __init__(self, channels: int, hidden: int, **placement: Any) -> None:
        super().__init__(**placement)
        self.channels, self.hidden = channels, hidden
        self.add_parameter("squeeze", (hidden, channels), nn.initialisers.he_uniform())
        self.add_parameter("expand", (channels, hidden), nn.initialisers.glorot_uniform())

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 4 or shape[1] != self.channels:
            raise ValueError(f"input must have shape (N, {self.channels}, H, W), got {shape}")
        return shape

    def _forward(self, x: Any) -> Any:
        self._output_shape(x.shape)
        xp = self.backend.xp
        mean = xp.mean(x, axis=(2, 3))
        a = f.relu(f.dense(mean, self.parameter_value("squeeze"), xp=xp), xp=xp)
        s = f.sigmoid(f.dense(a, self.parameter_value("expand"), xp=xp), xp=xp)
        self.save_for_backward(x, mean, a, s)
        return s[:, :, None, None] * x

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        xp, (x, mean, a, s) = self.backend.xp, self.saved
        ds = f.sigmoid_backward(xp.sum(dy * x, axis=(2, 3)), s, xp=xp)
        da, dexpand, _ = f.dense_backward(ds, a, self.parameter_value("expand"), xp=xp)
        dh = f.relu_backward(da, a, xp=xp)
        dmean, dsqueeze, _ = f.dense_backward(dh, mean, self.parameter_value("squeeze"), xp=xp)
        self.accumulate_grad("squeeze", dsqueeze)
        self.accumulate_grad("expand", dexpand)
        return s[:, :, None, None] * dy + (dmean * (1.0 / (x.shape[2] * x.shape[3])))[:, :, None, None]


def main() -> None:
    """Check the gradients, train, and compare the numerics."""
    x = np.random.default_rng(0).standard_normal((3, 4, 2, 5))
    nn.testing.gradcheck(SqueezeExcitation(4, 6, backend="numpy", dtype="float64", seed=0), x)
    print("gradients agree with finite differences")
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 1, 8, 8) / 16.0).astype("float32")
    block = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), SqueezeExcitation(16, 4), nn.MaxPool2d(2))
    model = nn.Sequential(block, nn.Flatten(), nn.Dense(144, 10), seed=0)
    print(model.summary((1, 1, 8, 8)))
    nn.fit(model, (images[:1500], labels[:1500]), epochs=5, optimizer=nn.Adam(model, lr=1e-2), progress=False)
    accuracy = nn.evaluate(model, (images[1500:], labels[1500:]))["accuracy"]
    print(f"digits: {accuracy:.1%} right")
    assert accuracy > 0.85

    exact = SqueezeExcitation(4, 6, backend="numpy", numerics="exact", seed=0)
    double = SqueezeExcitation(4, 6, backend="numpy", dtype="float64")
    double.load_state_dict(exact.state_dict())
    y, reference = exact(x.astype("float32")), double(x.astype("float32").astype("float64"))
    error = float(np.max(np.abs(y - reference) / np.abs(reference)))
    print(f"exact numerics: relative error {error:.1e}; rounding to float32 alone is up to {2.0**-24:.1e}")
    assert error <= 2.0**-24 * 1.001


if __name__ == "__main__":
    main()
