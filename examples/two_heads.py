"""Train one net with two outputs and two different losses.

You learn how gradients are passed by hand where a model is not a chain: each head returns the gradient with respect to
its input, and their sum goes back into the trunk. Here one head names the digit (cross-entropy) and the other estimates
how much of the image is ink (mean squared error).

Needs scikit-learn, for its handwritten digits.
"""

import numpy as np
from sklearn.datasets import load_digits

import xpnn as nn

BACKEND = nn.get_backend()  # NumPy, or what XPNN_BACKEND names


def main() -> None:
    """Train for a few epochs, and check both outputs on images that training did not see."""
    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype("float32")
    ink = images.mean(axis=(1, 2, 3))[:, None] * 10.0
    test = np.arange(len(images)) % 4 == 0
    train = np.flatnonzero(~test)

    trunk = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), backend=BACKEND, seed=0
    )
    which, how_much = nn.Dense(256, 10, backend=BACKEND, seed=1), nn.Dense(256, 1, backend=BACKEND, seed=2)
    parameters = [p for part in (trunk, which, how_much) for _, p in part.named_parameters()]
    optimizer = nn.Adam(parameters, lr=5e-3)
    cross_entropy, squared_error = nn.CrossEntropy(), nn.MSE()

    order = np.random.default_rng(0)
    for _ in range(6):
        for batch in np.array_split(order.permutation(train), 42):
            x, label, amount = (BACKEND.asarray(a[batch]) for a in (images, digits.target, ink))
            features = trunk(x)
            cross_entropy(which(features), label)
            squared_error(how_much(features), amount)
            for parameter in parameters:
                parameter.zero_grad()
            # The total loss is the sum of both, so its gradient with respect to the features is the sum of theirs.
            dfeatures = which.backward(cross_entropy.backward()) + how_much.backward(squared_error.backward())
            trunk.backward(dfeatures, input_grad=False)
            optimizer.step()

    for part in (trunk, which, how_much):
        part.eval()
    features = trunk(BACKEND.asarray(images[test]))
    found = BACKEND.to_numpy(which(features)).argmax(axis=1)
    accuracy = float(np.mean(found == digits.target[test]))
    error = float(np.abs(BACKEND.to_numpy(how_much(features)) - ink[test]).mean())
    print(f"digits: {accuracy:.1%} right; ink: off by {error:.3f} of {ink.mean():.2f} on average")
    assert accuracy > 0.93
    assert error < 0.1 * ink.mean()


if __name__ == "__main__":
    main()
