"""Train a ResNet-18 on CIFAR-10 or CIFAR-100: ``python scripts/train_cifar10.py --data FOLDER [--backend cupy]``.

FOLDER holds the files of the binary version (``data_batch_1.bin`` and so on). Images are flipped and shifted; the
learning rate rises and falls once. ``--backend cupy`` trains on a GPU; nothing else differs there.
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
    with reported("train_cifar10"):
        return trained(arguments)


def trained(arguments: list[str] | None = None) -> nn.History:
    """Train, and write weights, history and checkpoints."""
    options = parse_options(
        arguments, "train_cifar10", __doc__, data="folder of the binary files", epochs=30, lr=0.4, out="runs/cifar10"
    )
    with preparing():
        check_resumable(options.out, options.resume)
        data = load_dataset(options.data)
        backend = open_backend(options.backend)
        model = nn.models.resnet18(data.image, data.classes, backend=backend, seed=options.seed)
        prepare = nn.augment.Compose(nn.augment.PadAndCrop(4), nn.augment.Flip(), nn.augment.Normalise.of(data))
        train = trainable(model, data, data.loader(options.batch, seed=options.seed, transform=prepare))
        test = data.held_out(500, transform=prepare)
        optimizer = nn.SGD(model, lr=options.lr, momentum=0.9, weight_decay=5e-4)
        schedule = nn.OneCycleLR(optimizer, options.lr, options.epochs * len(train))

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
    sys.exit(program("train_cifar10", main))
