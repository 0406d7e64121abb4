"""Train LeNet-5 on MNIST or Fashion-MNIST: ``python scripts/train_mnist.py --data FOLDER [--backend cupy]``.

FOLDER holds the four IDX files as they are distributed, packed or not (``train-images-idx3-ubyte.gz`` and so on).
"""

import argparse
from pathlib import Path

import xpnn as nn
from xpnn.scripts.help_text import Help
from xpnn.training.datasets import load_dataset


def main(arguments: list[str] | None = None) -> nn.History:
    """Train, and write weights, history and checkpoints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], formatter_class=Help)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="folder of the IDX files")
    parser.add_argument(
        "--backend", default="auto", help="numpy, cupy, torch, ...; auto is CuPy where a GPU works, else NumPy"
    )
    parser.add_argument("--epochs", default=10, type=int, help="passes over the data")
    parser.add_argument("--batch", default=128, type=int, help="samples in a batch")
    parser.add_argument("--lr", default=2e-3, type=float, help="learning rate")
    parser.add_argument("--seed", default=0, type=int, help="of weights, order of samples")
    parser.add_argument("--out", default="runs/mnist", help="where to write")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    options = parser.parse_args(arguments)

    data = load_dataset(options.data)
    model = nn.models.lenet5(data.image, data.classes, backend=options.backend, seed=options.seed)
    train = data.loader(options.batch, seed=options.seed)
    test = data.held_out(batch_size=500)
    optimizer = nn.Adam(model, lr=options.lr)
    schedule = nn.CosineLR(optimizer, options.epochs * len(train))

    out = Path(options.out)
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
    main()
