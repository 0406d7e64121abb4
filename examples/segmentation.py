"""Name the class of every pixel with a small fully convolutional net.

You learn that ``CrossEntropy`` accepts logits ``(N, K, H, W)`` with a map of classes ``(N, H, W)``, how classes that
are rare get a larger weight, and that a net without dense layers accepts images of any size.
"""

import numpy as np

import xpnn as nn

BACKGROUND, DISC, SQUARE = range(3)


def shapes(n: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 1, size, size)`` with one disc and one square each in noise, and the class of each pixel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    x = rng.normal(0.0, 0.2, (n, 1, size, size)).astype("float32")
    y = np.full((n, size, size), BACKGROUND)
    for i in range(n):
        (r0, c0), (r1, c1) = rng.integers(5, size - 5, (2, 2))
        y[i][(rows - r0) ** 2 + (columns - c0) ** 2 <= 16] = DISC
        y[i][np.maximum(abs(rows - r1), abs(columns - c1)) <= 3] = SQUARE
        x[i, 0] += np.where(y[i] == BACKGROUND, 0.0, np.where(y[i] == DISC, 1.0, -1.0))
    return x, y


def block(inside: int, outside: int) -> nn.Layer:
    """A convolution that keeps the size of the image."""
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding="same"), nn.BatchNorm2d(outside), nn.ReLU())


def overlap(found: np.ndarray, y: np.ndarray, k: int) -> float:
    """Intersection over union of one class."""
    return float(np.sum((found == k) & (y == k)) / np.sum((found == k) | (y == k)))


def main() -> None:
    """Train on images of 24 x 24 pixels, and test on larger ones."""
    model = nn.Sequential(
        block(1, 8),
        nn.MaxPool2d(2),
        block(8, 16),
        nn.Upsample(2),
        block(16, 8),
        nn.Conv2d(8, 3, 1),  # three logits for each pixel
        seed=0,
    )
    loss = nn.CrossEntropy(weight=[0.2, 1.0, 1.0])
    optimizer = nn.Adam(model, lr=1e-2)
    data = shapes(256, 24, seed=0)
    history = nn.fit(model, data, loss=loss, optimizer=optimizer, epochs=6, batch_size=16, progress=False)
    x, y = shapes(32, 40, seed=1)
    found = nn.predict(model, x).argmax(axis=1)
    overlaps = [overlap(found, y, k) for k in (BACKGROUND, DISC, SQUARE)]
    print("intersection over union:", ", ".join(f"{each:.2f}" for each in overlaps))
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert min(overlaps) > 0.7


if __name__ == "__main__":
    main()
