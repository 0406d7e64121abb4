"""Train LeNet-5 on MNIST or Fashion-MNIST: ``python scripts/train_mnist.py --data FOLDER [--backend cupy]``.

FOLDER holds the four IDX files as they are distributed, compressed or not (``train-images-idx3-ubyte.gz`` and so on).
"""

import sys

import xpnn as nn
from xpnn.cli.training_script import (
    check_resumable,
    open_backend,
    parse_options,
    preparing,
    program,
    reported,
    trainable,
)
from xpnn.training.datasets import load_dataset


def main(arguments: list[str] | None = None) -> nn.History:
    """Train; a mistake in the call ends with one line and an exit status."""
    with reported("train_mnist"):
        return trained(arguments)


def trained(arguments: list[str] | None = None) -> nn.History:
    """Train, and write weights, history and checkpoints."""
    options = parse_options(
        arguments, "train_mnist", __doc__, data="folder of the IDX files", epochs=10, lr=2e-3, out="runs/mnist"
    )
    with preparing():
        check_resumable(options.out, options.resume)
        data = load_dataset(options.data)
        backend = open_backend(options.backend)
        model = nn.models.lenet5(data.image, data.classes, backend=backend, seed=options.seed)
        train = trainable(model, data, data.loader(options.batch, seed=options.seed))
        test = data.held_out(batch_size=500)
        optimizer = nn.Adam(model, lr=options.lr)
        schedule = nn.CosineLR(optimizer, options.epochs * len(train))

    history = nn.fit(
        model,
        train,
        validation=test,
        optimizer=optimizer,
        schedule=schedule,
        epochs=options.epochs,
        on_nan="stop",
        checkpoints=options.out / "checkpoints",
        resume=options.resume,
    )
    nn.save(model, options.out / "model.safetensors")
    history.to_csv(options.out / "history.csv")
    print(f"{history['validation_accuracy'][-1]:.2%} of {len(data.y_test)} test images are right")
    return history


if __name__ == "__main__":
    sys.exit(program("train_mnist", main))
