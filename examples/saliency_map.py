"""See which pixels a net's decision depends on: the gradient of one logit with respect to the image.

You learn that ``backward`` accepts any upstream gradient, not only that of a loss, and that it returns the gradient
with respect to the input. In evaluation layers save what backward needs within ``nn.enable_grad()`` only.

    python examples/saliency_map.py maps.png

draws the maps too (needs Matplotlib). Needs scikit-learn, for its handwritten digits.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

import xpnn as nn


def input_gradient(model: nn.Layer, images: np.ndarray) -> np.ndarray:
    """Gradient of the largest logit of each image with respect to its pixels."""
    b = model.eval().backend
    with nn.enable_grad():
        logits = b.to_numpy(model(b.asarray(images)))
    dlogits = np.eye(logits.shape[1], dtype="float32")[logits.argmax(axis=1)]
    dimages = b.to_numpy(model.backward(b.asarray(dlogits)))
    model.zero_grad()  # backward has added to the gradients of the parameters
    return dimages


def draw(path: str, images: np.ndarray, maps: np.ndarray) -> None:
    """Images above, maps below, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.2), layout="constrained")
    for axes, image in zip(figure.subplots(2, len(images)).flat, [*images, *maps], strict=True):
        axes.imshow(image, cmap="gray")
        axes.axis("off")
    figure.savefig(path)


def main(picture: str | None = None) -> None:
    """Train a small net, compute the maps of ten digits, and check that they predict how the logits change."""
    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype("float32")
    test = np.arange(len(images)) % 4 == 0
    # A smooth net: at the kinks of ReLU and max-pool a gradient predicts one side only.
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dense(256, 10), seed=0
    )
    nn.fit(model, (images[~test], digits.target[~test]), epochs=4, batch_size=32, seed=0, progress=False)

    x = np.stack([images[test & (digits.target == k)][0] for k in range(10)])
    gradient = input_gradient(model, x)
    logits = nn.predict(model, x)
    likeliest = logits.argmax(axis=1)

    # Move the ten most salient pixels of each image a little along the gradient, and then its ten least salient ones.
    order = np.abs(gradient).reshape(10, -1).argsort(axis=1)
    rise = []
    for pixels in (order[:, -10:], order[:, :10]):
        step = np.zeros((10, 64), "float32")
        np.put_along_axis(step, pixels, 0.02, axis=1)
        step = step.reshape(x.shape) * np.sign(gradient)
        expected = (step * gradient).sum(axis=(1, 2, 3))
        found = (nn.predict(model, x + step) - logits)[range(10), likeliest]
        print(f"largest logits rise by {found.mean():.3f}, by the gradient {expected.mean():.3f}")
        rise.append((found.mean(), expected.mean()))
    assert abs(rise[0][0] - rise[0][1]) < 0.1 * rise[0][1]
    assert rise[0][0] > 4 * rise[1][0]
    if picture is not None:
        draw(picture, x[:, 0], np.abs(gradient[:, 0]))


if __name__ == "__main__":
    main(*sys.argv[1:2])
