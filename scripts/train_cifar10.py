"""Train a ResNet-18 on CIFAR-10 or CIFAR-100: ``python scripts/train_cifar10.py --data FOLDER [--backend cupy]``.

FOLDER holds the files of the binary version (``data_batch_1.bin`` and so on). A step flips and shifts images; the rate
goes up and down once. On a GPU that is the whole difference: ``--backend cupy``.
"""

import sys
from pathlib import Path

import xpnn as nn
from xpnn.cli.backend_option import add_backend, open_backend
from xpnn.cli.build import trainable
from xpnn.cli.errors import at_least, positive, preparing, text
from xpnn.cli.program import program, reported
from xpnn.cli.run_folder import check_resumable
from xpnn.cli.standalone.arguments import Parser
from xpnn.training import augment
from xpnn.training.datasets import load_dataset


def main(arguments: list[str] | None = None) -> nn.History:
    """Train; what is wrong with the call is one line and an exit status."""
    with reported("train_cifar10"):
        return trained(arguments)


def trained(arguments: list[str] | None = None) -> nn.History:
    """Train, and write weights, history and checkpoints."""
    parser = Parser(prog="train_cifar10", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, type=text, metavar="FOLDER", help="folder of the binary files")
    add_backend(parser)
    parser.add_argument("--epochs", default=30, type=at_least(1), help="passes over the data")
    parser.add_argument("--batch", default=128, type=at_least(1), help="samples in a batch")
    parser.add_argument("--lr", default=0.4, type=positive, help="the highest rate")
    parser.add_argument("--seed", default=0, type=at_least(0), help="of weights, order of samples and augmentation")
    parser.add_argument("--out", type=text, default="runs/cifar10", help="where to write")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    with preparing():
        check_resumable(out, options.resume)
        data = load_dataset(options.data)
        backend = open_backend(options.backend)
        model = nn.models.resnet18(data.image, data.classes, backend=backend, seed=options.seed)
        prepare = augment.Compose(augment.PadAndCrop(4), augment.Flip(), augment.Normalise.of(data))
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
        checkpoints=out / "checkpoints",
        resume=options.resume,
    )
    nn.save(model, out / "model.safetensors")
    history.to_csv(out / "history.csv")
    print(f"{history['validation_accuracy'][-1]:.2%} of {len(data.y_test)} test images are right")
    return history


if __name__ == "__main__":
    sys.exit(program("train_cifar10", main))
