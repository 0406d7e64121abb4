"""Train LeNet-5 on MNIST or Fashion-MNIST: ``python scripts/train_mnist.py --data FOLDER [--backend cupy]``.

FOLDER holds the four IDX files as they are distributed, packed or not (``train-images-idx3-ubyte.gz`` and so on).
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
from xpnn.training.datasets import load_dataset


def main(arguments: list[str] | None = None) -> nn.History:
    """Train; what is wrong with the call is one line and an exit status."""
    with reported("train_mnist"):
        return trained(arguments)


def trained(arguments: list[str] | None = None) -> nn.History:
    """Train, and write weights, history and checkpoints."""
    parser = Parser(prog="train_mnist", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, type=text, metavar="FOLDER", help="folder of the IDX files")
    add_backend(parser)
    parser.add_argument("--epochs", default=10, type=at_least(1), help="passes over the data")
    parser.add_argument("--batch", default=128, type=at_least(1), help="samples in a batch")
    parser.add_argument("--lr", default=2e-3, type=positive, help="learning rate")
    parser.add_argument("--seed", default=0, type=at_least(0), help="of weights, order of samples")
    parser.add_argument("--out", type=text, default="runs/mnist", help="where to write")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    with preparing():
        check_resumable(out, options.resume)
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
        checkpoints=out / "checkpoints",
        resume=options.resume,
    )
    nn.save(model, out / "model.safetensors")
    history.to_csv(out / "history.csv")
    print(f"{history['validation_accuracy'][-1]:.2%} of {len(data.y_test)} test images are right")
    return history


if __name__ == "__main__":
    sys.exit(program("train_mnist", main))
