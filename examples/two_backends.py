"""Compute one net on two backends, and find the first layer whose results differ.

You learn how to compare two copies of a model layer by layer, how a weight that differs is found by name, and
what exact numerics are for: in fast numerics two libraries may round differently, in exact numerics they have the same
bits. The second backend is CuPy where a GPU works, else PyTorch where it is installed, else array-api-strict.
"""

import numpy as np

import xpnn as nn
from xpnn.testing import first_difference


def other_backend() -> str:
    """The first backend that works here, of those that differ most from NumPy; NumPy if none does."""
    for name in ("cupy", "torch", "strict"):
        try:
            nn.get_backend(name)
        except nn.BackendUnavailable:
            continue
        return name
    return "numpy"


def net(backend: str, numerics: str) -> nn.Sequential:
    """The same net on any backend: initial weights depend on the seed and on the names of the layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same"),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dense(8 * 8 * 8, 10),
        backend=backend,
        numerics=numerics,
        seed=0,
    )


def main() -> None:
    """Compare outputs and gradients of all layers in both numerics."""
    other = other_backend()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 3, 16, 16), dtype="float32")
    dy = rng.standard_normal((16, 10), dtype="float32")

    ours, theirs = net("numpy", "fast"), net(other, "fast")
    print(f"fast, numpy and {other}: first difference:", first_difference(ours, theirs, x, dy))
    # A rounding is within a few hundred units of the last place; a mistake would be larger by far.
    assert first_difference(ours, theirs, x, dy, ulps=500) is None

    ours, theirs = net("numpy", "exact"), net(other, "exact")
    print(f"exact, numpy and {other}: first difference:", first_difference(ours, theirs, x, dy))
    assert first_difference(ours, theirs, x, dy) is None

    # A weight that was changed on one side is found by name.
    weights = theirs.state_dict()
    weights["5.weight"][0, 0] += 0.01
    theirs.load_state_dict(weights)
    found = first_difference(ours, theirs, x, dy)
    print("after a change of one weight:", found)
    assert found is not None and found.layer == "5"


if __name__ == "__main__":
    main()
