"""Every public constructor and function with arguments that it accepts; values to try are derived from these.

A row says how to call it: the arguments that are not numbers, a value for each number without a usable default, and the
number of axes of its sizes.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import xpnn as nn
from xpnn import augment, testing
from xpnn.layers import functional, initialisers, models
from xpnn.layers.windows import geometry

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 0.9, shape).astype(np.float32)


X, LINE, ROWS = array(2, 4, 6, 6), array(2, 4, 6), array(4, 3)
KEEP, CLASSES = X > 0.3, np.array([0, 2, 1, 0])
DATA = (ROWS, CLASSES)


def dense(**placement: Any) -> nn.Layer:
    return nn.Dense(3, 3, seed=1, **placement)


def with_gradients() -> nn.Layer:
    layer = dense()
    layer(ROWS)
    layer.backward(ROWS)
    return layer


def clipped(clip: Callable[..., Any]) -> Callable[..., Any]:
    def call(**options: Any) -> Any:
        layer = with_gradients()
        return clip(layer, **options), *(p.grad for _, p in layer.named_parameters())

    return call


def stepped(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer after two steps, and the values."""

    def call(**options: Any) -> Any:
        layer = with_gradients()
        made = optimizer(layer, **options)
        for _ in range(2):
            made.step()
        return made, *(p.value for _, p in layer.named_parameters())

    return call


def scheduled(schedule: Callable[..., Any]) -> Callable[..., Any]:
    """The schedule after three steps, and the rates."""

    def call(**options: Any) -> Any:
        optimizer = nn.SGD(dense(), lr=0.5, momentum=0.5)
        made, rates = schedule(optimizer, **options), [optimizer.lr]
        for _ in range(3):
            made.step(*([1.0] if schedule is nn.ReduceLROnPlateau else []))
            rates.append(optimizer.lr)
        return made, rates

    return call


def drawn(initialiser: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **options: initialiser(**options)((3, 2), nn.random.Generator(0), nn.get_backend("numpy"))


def fitted(**options: Any) -> Any:
    history = nn.fit(dense(), DATA, **{"epochs": 1, "progress": False, **options})
    return {name: column for name, column in history.items() if name != "seconds"}


def kept(checkpoints: nn.Checkpoints) -> Any:
    return checkpoints.keep, checkpoints.every


def used(**options: Any) -> Any:
    with nn.use_backend("numpy", **options) as b:
        return b


def history(**options: Any) -> Any:
    return nn.History.from_rows([{"validation_loss": 2.0}, {"validation_loss": 1.0}]).best(**options)


@dataclass(frozen=True)
class Row:
    call: Callable[..., Any]
    given: dict[str, Any] = field(default_factory=dict)
    axes: int = 1
    #: What the signature is read from; ``call`` unless given.
    of: Callable[..., Any] | None = None
    #: Numbers that may be NaN or infinite.
    open: tuple[str, ...] = ()


BORDERS = ("reflect", "replicate", "circular")
PLAIN = "ReLU ReLU6 SELU Sigmoid LogSigmoid Tanh TanhShrink Softsign HardSwish SiLU Mish"
OTHERS_PLAIN = "Identity GlobalAvgPool GlobalMaxPool"
WITH_DEFAULTS = "LeakyReLU PReLU ELU CELU Softplus GELU HardSigmoid HardShrink SoftShrink"
OTHERS_WITH_DEFAULTS = "Softmax LogSoftmax Softmin Hardmax GLU GlobalLpPool Dropout Flatten"


def upsampled(scale_factor: float, mode: str = "nearest") -> nn.Layer:
    return nn.Upsample(scale_factor, mode=mode)


def resized(size: int | tuple[int, ...], mode: str = "nearest") -> nn.Layer:
    return nn.Upsample(size=size, mode=mode)


def only_mode(mode: str = "nearest") -> None:
    """A signature: of a size and a scale factor only one is given."""


def layers() -> Iterator[tuple[str, Row]]:
    conv = {
        "in_channels": 2,
        "out_channels": 4,
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
        "dilation": 2,
        "groups": 2,
    }
    pool = {"kernel_size": 2, "stride": 1, "padding": 1}
    for axes in (1, 2, 3):
        yield f"Conv{axes}d", Row(getattr(nn, f"Conv{axes}d"), conv, axes)
        yield f"ConvTranspose{axes}d", Row(getattr(nn, f"ConvTranspose{axes}d"), {**conv, "output_padding": 1}, axes)
        yield f"MaxPool{axes}d", Row(getattr(nn, f"MaxPool{axes}d"), {**pool, "dilation": 2}, axes)
        yield (
            f"AvgPool{axes}d",
            Row(getattr(nn, f"AvgPool{axes}d"), {**pool, "divisor_override": 3, "dilation": 2}, axes),
        )
        yield f"LpPool{axes}d", Row(getattr(nn, f"LpPool{axes}d"), {"norm_type": 3.0, **pool, "dilation": 2}, axes)
        for name in (f"AdaptiveAvgPool{axes}d", f"AdaptiveMaxPool{axes}d"):
            yield name, Row(getattr(nn, name), {"output_size": 2}, axes)
        for name in (f"BatchNorm{axes}d", f"InstanceNorm{axes}d"):
            yield name, Row(getattr(nn, name), {"num_features": 4})
        yield f"Dropout{axes}d", Row(getattr(nn, f"Dropout{axes}d"))
    for name in ("AdaptiveAvgPool", "AdaptiveMaxPool"):
        yield name, Row(getattr(nn, name), {"output_size": 2}, 0)
    for name in f"{PLAIN} {OTHERS_PLAIN} {WITH_DEFAULTS} {OTHERS_WITH_DEFAULTS}".split():
        yield name, Row(getattr(nn, name))
    yield "Clip", Row(nn.Clip, {"min": 0.25, "max": 0.5}, open=("min", "max"))
    yield "HardTanh", Row(nn.HardTanh, {"max_val": 2.0}, open=("min_val", "max_val"))
    yield "Threshold", Row(nn.Threshold, {"threshold": 0.25, "value": 0.5})
    yield "Dense", Row(nn.Dense, {"in_features": 3, "out_features": 2})
    yield "Embedding", Row(nn.Embedding, {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": 2})
    yield "PositionEmbedding", Row(nn.PositionEmbedding, {"length": 5, "embedding_dim": 3})
    yield "MultiHeadAttention", Row(nn.MultiHeadAttention, {"embed_dim": 4, "num_heads": 2, "dropout": 0.5})
    yield "Permute", Row(lambda axes: nn.Permute(axes), {"axes": 1}, of=nn.Permute)
    yield "LayerNorm", Row(nn.LayerNorm, {"normalized_shape": 3}, 0)
    yield "RMSNorm", Row(nn.RMSNorm, {"normalized_shape": 3, "eps": 0.5}, 0)
    yield "LocalResponseNorm", Row(nn.LocalResponseNorm, {"size": 3})
    yield "GroupNorm", Row(nn.GroupNorm, {"num_groups": 2, "num_channels": 4})
    yield "Reshape", Row(lambda shape: nn.Reshape(shape, -1), {"shape": 2}, of=nn.Reshape)
    yield "Pad", Row(nn.Pad, {"padding": 1}, 0, open=("value",))
    yield "Upsample", Row(upsampled, {"scale_factor": 2.5})
    yield "Upsample.size", Row(resized, {"size": 3}, 0)
    yield "PixelShuffle", Row(nn.PixelShuffle, {"upscale_factor": 2})
    yield "PixelUnshuffle", Row(nn.PixelUnshuffle, {"downscale_factor": 2})
    yield "Parallel", Row(lambda **options: nn.Parallel(nn.ReLU(), **options), of=nn.Parallel)
    yield "Concat", Row(nn.Concat)
    yield "Graph", Row(lambda **options: nn.Graph({"a": (nn.ReLU(), "input")}, **options), of=nn.Graph)
    for name in ("Add", "Multiply"):
        yield name, Row(getattr(nn, name))
    for name in ("Sequential", "Residual", "Checkpointed"):
        yield name, Row(lambda name=name: getattr(nn, name)(nn.ReLU()), of=lambda: None)


def losses() -> Iterator[tuple[str, Row]]:
    plain = "MSE MAE MSLE MAPE L1 L2"
    for name in f"{plain} Loss Huber SmoothL1 BinaryCrossEntropy BinaryCrossEntropyWithLogits KLDivergence".split():
        yield name, Row(getattr(nn, name))
        if name != "Loss":
            yield f"{name}.backward", Row(partial(upstream, name, ROWS), {"dy": 0.5})
    for name in ("CrossEntropy", "NLL", "Focal", "Dice"):
        yield name, Row(getattr(nn, name))
        yield f"{name}.backward", Row(partial(upstream, name, CLASSES), {"dy": 0.5})


def upstream(name: str, target: np.ndarray, dy: float) -> np.ndarray:
    loss = getattr(nn, name)()
    loss(ROWS, target)
    return loss.backward(dy)


def training() -> Iterator[tuple[str, Row]]:
    for name in ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Lion"]:
        kind = getattr(nn, name)
        yield name, Row(stepped(kind), of=kind)
    yield (
        "decay_groups",
        Row(lambda **options: nn.decay_groups(dense(), **options)[0]["weight_decay"], of=nn.decay_groups),
    )
    yield "Optimizer", Row(lambda **options: nn.Optimizer(dense(), **options), {"lr": 0.5}, of=nn.Optimizer)
    steps = {"StepLR": {"step_size": 2}, "ExponentialLR": {"gamma": 0.5}, "CosineLR": {"total_steps": 5, "warmup": 2}}
    cycle = {"OneCycleLR": {"max_lr": 0.5, "total_steps": 5}, "ReduceLROnPlateau": {"patience": 1}}
    for name, given in (steps | cycle).items():
        yield name, Row(scheduled(getattr(nn, name)), given, of=getattr(nn, name))
    plateau = nn.ReduceLROnPlateau(nn.SGD(dense(), lr=0.5))
    yield "ReduceLROnPlateau.step", Row(plateau.step, {"metric": 0.5}, of=nn.ReduceLROnPlateau.step, open=("metric",))
    yield "EMA", Row(lambda **options: repr(nn.EMA(dense(), **options)), of=nn.EMA)
    yield (
        "GradScaler",
        Row(lambda **options: repr(nn.GradScaler(**options).state_dict()), {"growth_interval": 3}, of=nn.GradScaler),
    )
    yield "EarlyStopping", Row(nn.EarlyStopping, {"patience": 2})
    yield (
        "Checkpoints",
        Row(lambda **options: kept(nn.Checkpoints("folder", **options)), {"every": 3}, of=nn.Checkpoints),
    )
    yield (
        "clip_grad_norm",
        Row(clipped(nn.clip_grad_norm), {"max_norm": 0.5}, of=nn.clip_grad_norm, open=("norm_type",)),
    )
    yield "clip_grad_value", Row(clipped(nn.clip_grad_value), {"limit": 0.5}, of=nn.clip_grad_value)
    loader = {"batch_size": 2, "scale": 0.5, "prefetch": 1}
    sampler = {"num_samples": 3, "replacement": True, "seed": 0}
    drawn = partial(nn.WeightedRandomSampler, [1.0, 2.0])
    yield (
        "WeightedRandomSampler",
        Row(lambda **options: drawn(**options).positions(2), sampler, of=nn.WeightedRandomSampler),
    )
    yield "DataLoader", Row(lambda **options: nn.DataLoader(*DATA, **options), loader, of=nn.DataLoader)
    yield "DataLoader.batches", Row(batches, {"start": 1}, of=nn.DataLoader.batches)
    fit = {"epochs": 1, "clip_norm": 0.5, "clip_value": 0.5, "early_stopping": 2}
    yield "fit", Row(fitted, fit, of=nn.fit)
    yield "evaluate", Row(lambda **options: nn.evaluate(dense(), DATA, **options), {"batch_size": 3}, of=nn.evaluate)
    yield "predict", Row(lambda **options: nn.predict(dense(), ROWS, **options), {"batch_size": 3}, of=nn.predict)
    yield "History.best", Row(history, of=nn.History.best)
    yield "Layer.summary", Row(lambda input_shape: str(dense().summary(input_shape)), {"input_shape": (1, 3)}, 2)
    yield "Layer.train", Row(lambda **options: dense().train(**options).training, of=nn.Layer.train)
    yield (
        "get_backend",
        Row(lambda **options: nn.get_backend("numpy", **options), {"slice_products": 2}, of=nn.get_backend),
    )
    yield "use_backend", Row(used, {"slice_products": 2}, of=nn.use_backend)
    yield "augment.Flip", Row(augment.Flip)
    yield "augment.PadAndCrop", Row(augment.PadAndCrop)
    yield "augment.Cutout", Row(augment.Cutout, {"size": 2})
    yield "augment.Normalise", Row(augment.Normalise, {"mean": 0.5, "std": 0.25})
    yield "augment.Compose", Row(augment.Compose)
    matched = partial(testing.assert_match, ROWS, ROWS)
    yield "testing.assert_match", Row(matched, of=testing.assert_match)
    difference = partial(testing.first_difference, dense(), dense(), ROWS)
    yield "testing.first_difference", Row(difference, of=testing.first_difference, open=("ulps",))
    check = partial(testing.gradcheck, dense(dtype="float64"), ROWS)
    yield "testing.gradcheck", Row(check, {"step": 1e-3, "tolerance": 0.5}, of=testing.gradcheck)
    yield "testing.tolerance", Row(testing.tolerance, {"op": "dense", "dtype": "float32"})


def batches(start: int) -> Any:
    """A pass of a new loader, because each pass of one loader has another order."""
    return nn.DataLoader(*DATA, 2).batches(nn.get_backend("numpy"), start)


def drawing(name: str) -> Callable[..., Any]:
    """A method of a new generator in each call, because each draw of one generator is another."""
    return lambda **options: getattr(nn.random.Generator(0), name)(**options)


def randomness() -> Iterator[tuple[str, Row]]:
    kind = nn.random.Generator
    yield "random.Generator", Row(kind)
    yield "random.Generator.fold_in", Row(lambda name: kind(0).fold_in(name), {"name": 3})
    for name in ("bits", "uniform", "normal"):
        yield f"random.Generator.{name}", Row(drawing(name), {"shape": (2, 3)}, 2, of=getattr(kind, name))
    yield "random.Generator.permutation", Row(lambda n: kind(0).permutation(n), {"n": 5}, of=kind.permutation)
    yield "initialisers.constant", Row(drawn(initialisers.constant), of=initialisers.constant, open=("value",))
    yield "initialisers.uniform", Row(drawn(initialisers.uniform), {"bound": 0.5}, of=initialisers.uniform)
    yield "initialisers.normal", Row(drawn(initialisers.normal), {"std": 0.5}, of=initialisers.normal)
    yield "initialisers.orthogonal", Row(drawn(initialisers.orthogonal), of=initialisers.orthogonal)


def nets() -> Iterator[tuple[str, Row]]:
    for name in models.__all__:
        if callable(getattr(models, name)):
            size = 32 if name == "vgg11_bn" else 12
            yield f"models.{name}", Row(getattr(models, name), {"image": (3, size, size), "classes": 4}, 3)


def functions() -> Iterator[tuple[str, Row]]:
    pool, dy = {"kernel_size": 2, "stride": 1, "padding": 1}, {"dy": X}
    size, moments = {"output_size": 2, "x_shape": X.shape}, {"mean": array(4), "var": array(4)}
    indices = functional.adaptive_max_pool(X, 2, return_indices=True)[1]
    average = functional.avg_pool(X, **pool)
    power, power_y = {"norm_type": 3.0, **pool, "dilation": 2}, functional.lp_pool(X, 3.0, **pool, dilation=2)
    largest = functional.max_pool(X, **pool, dilation=2)
    weight, options = array(4, 2, 3, 3), {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    convolved = functional.conv(X, weight, **options)
    back = {**options, "output_padding": 1}
    spread = functional.conv_transpose(X, weight, **back)
    logits, entries = {"logits": ROWS, "target": CLASSES}, {"prediction": ROWS, "target": ROWS[::-1].copy()}
    special: dict[str, dict[str, Any]] = {
        "adaptive_avg_pool": {"x": X, "output_size": 2},
        "adaptive_avg_pool_backward": {"dy": X[..., :2, :2], **size},
        "adaptive_max_pool": {"x": X, "output_size": 2},
        "adaptive_max_pool_backward": {"dy": X[..., :2, :2], "indices": indices, **size},
        "avg_pool": {"x": X, **pool, "divisor_override": 3},
        "avg_pool_backward": {"dy": average, "x_shape": X.shape, **pool, "divisor_override": 3},
        "lp_pool": {"x": X, **power},
        "lp_pool_backward": {"dy": power_y, "x": X, "y": power_y, **power},
        "max_pool": {"x": X, **pool, "dilation": 2},
        "max_pool_backward": {"dy": largest, "x": X, **pool, "dilation": 2},
        "batch_norm": {"x": X, **moments},
        "batch_norm_backward": {**dy, "x": X, **moments},
        "instance_norm": {"x": X},
        "instance_norm_backward": {**dy, "x": X},
        "group_norm": {"x": X, "num_groups": 2},
        "group_norm_backward": {**dy, "x": X, "num_groups": 2},
        "layer_norm": {"x": X, "normalized_shape": 6},
        "layer_norm_backward": {**dy, "x": X, "normalized_shape": 6},
        "rms_norm": {"x": X, "normalized_shape": 6, "eps": 0.5},
        "rms_norm_backward": {**dy, "x": X, "normalized_shape": 6, "eps": 0.5},
        "local_response_norm": {"x": X, "size": 3},
        "local_response_norm_backward": {**dy, "x": X, "size": 3},
        "conv": {"x": X, "weight": weight, **options},
        "conv_backward": {"dy": convolved, "x": X, "weight": weight, **options},
        "conv_transpose": {"x": X, "weight": weight, **back},
        "conv_transpose_backward": {"dy": spread, "x": X, "weight": weight, **back},
        "dense": {"x": ROWS, "weight": array(2, 3)},
        "dense_backward": {"dy": ROWS[:, :2], "x": ROWS, "weight": array(2, 3)},
        "attention": {"q": X, "k": X, "v": X, "keep": array(2, 4, 6, 6) > 0.3, "p": 0.3},
        "attention_backward": {**dy, "q": X, "k": X, "v": X, "keep": array(2, 4, 6, 6) > 0.3, "p": 0.3},
        "embedding": {"index": CLASSES, "weight": ROWS},
        "embedding_backward": {"dy": ROWS, "index": CLASSES, "num_embeddings": 5, "padding_idx": 2},
        "dropout": {"x": X, "keep": KEEP, "p": 0.3},
        "dropout_backward": {**dy, "keep": KEEP, "p": 0.3},
        "pad_constant": {"x": X, "padding": 1, "value": 0.3},
        "pad_constant_backward": {"dy": array(2, 4, 8, 8), "x_shape": X.shape, "padding": 1},
        **{f"pad_{mode}": {"x": X, "padding": 1} for mode in BORDERS},
        **{f"pad_{mode}_backward": {"dy": array(2, 4, 8, 8), "x_shape": X.shape, "padding": 1} for mode in BORDERS},
        "upsample_nearest": {"x": X, "scale_factor": 2},
        "upsample": {"x": X, "scale_factor": 1.5},
        "upsample_backward": {"dy": array(2, 4, 9, 9), "x_shape": X.shape, "scale_factor": 1.5},
        "pixel_shuffle": {"x": X, "upscale_factor": 2},
        "pixel_shuffle_backward": {**dy, "upscale_factor": 2},
        "pixel_unshuffle": {"x": X, "downscale_factor": 2},
        "pixel_unshuffle_backward": {**dy, "downscale_factor": 2},
        "upsample_nearest_backward": {**dy, "scale_factor": 2},
        "clip": {"x": X, "min": 0.25, "max": 0.5},
        "clip_backward": {**dy, "x": X, "min": 0.25, "max": 0.5},
        "hard_tanh": {"x": X, "max_val": 2.0},
        "hard_tanh_backward": {**dy, "x": X, "max_val": 2.0},
        "threshold": {"x": X, "threshold": 0.25, "value": 0.5},
        "threshold_backward": {**dy, "x": X, "threshold": 0.25, "value": 0.5},
        "glu": {"x": X},
        "glu_backward": {"dy": X[..., :3], "x": X},
        "prelu": {"x": X, "weight": array(4)},
        "prelu_backward": {**dy, "x": X, "weight": array(4)},
        "cross_entropy": logits,
        "cross_entropy_backward": logits,
        "focal": logits,
        "focal_backward": logits,
        "dice": {"prediction": ROWS, "target": CLASSES},
        "dice_backward": {"prediction": ROWS, "target": CLASSES},
        "nll": {"log_p": ROWS, "target": CLASSES},
        "nll_backward": {"log_p": ROWS, "target": CLASSES},
        "kl_divergence": {"log_p": ROWS, "target": ROWS},
        "kl_divergence_backward": {"log_p": ROWS, "target": ROWS},
        "binary_cross_entropy_with_logits": {"logits": ROWS, "target": ROWS},
        "binary_cross_entropy_with_logits_backward": {"logits": ROWS, "target": ROWS},
    }
    axes = dict.fromkeys(["layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"], 1)
    for name in functional.__all__:
        function = getattr(functional, name)
        parameters = inspect.signature(function).parameters
        given = special.get(name)
        if given is None:
            given = entries if "prediction" in parameters else {n: X for n in ("dy", "x", "y") if n in parameters}
        if "dy" in parameters and "dy" not in given:
            given = {**given, "dy": 0.5}
        of = only_mode if name in ("upsample", "upsample_backward") else None
        yield f"functional.{name}", Row(function, given, axes.get(name, 2), of, open=("value",))


def windows() -> Iterator[tuple[str, Row]]:
    window = {"spatial": (6, 5), "kernel": (3, 3), "stride": (2, 1), "padding": 1, "dilation": (1, 2)}
    yield "geometry.place_windows", Row(geometry.place_windows, window, 2)
    yield "geometry.resolve_padding", Row(geometry.resolve_padding, window, 2)
    yield "geometry.output_size", Row(geometry.output_size, {"n": 6, "kernel": 3, "padding": (1, 1)}, 2)


def table() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for rows in (layers, losses, training, randomness, nets, functions, windows):
        found.update(rows())
    return found


TABLE = table()

#: Public, and made or raised by the library, or without arguments of their own.
OTHERS = {
    "Backend",
    "BackendUnavailable",
    "CheckpointError",
    "Classifier",
    "Container",
    "History",
    "Layer",
    "NonFiniteError",
    "OutOfMemory",
    "Parameter",
    "PerInput",
    "Sampler",
    "as_torch_module",
    "augment.Transform",
    "backend_of",
    "enable_grad",
    "from_onnx",
    "from_torch",
    "initialisers.fans",
    "initialisers.glorot_normal",
    "initialisers.glorot_uniform",
    "initialisers.he_normal",
    "initialisers.he_uniform",
    "initialisers.lecun_normal",
    "initialisers.lecun_uniform",
    "is_grad_enabled",
    "layer_outputs",
    "load",
    "load_classifier",
    "no_grad",
    "released",
    "save",
    "testing.Case",
    "testing.Difference",
    "testing.cases",
    "testing.ulp_distance",
    "to_onnx",
    "to_torch",
}


def public() -> set[str]:
    """Names of all public functions and classes."""
    found = {name for name in nn.__all__ if callable(getattr(nn, name))}
    spaces = {"functional": functional, "models": models, "augment": augment, "testing": testing}
    for prefix, module in spaces.items():
        found |= {f"{prefix}.{name}" for name in module.__all__ if callable(getattr(module, name))}
    own = {name: each for name, each in vars(initialisers).items() if inspect.isfunction(each) and name[0] != "_"}
    found |= {f"initialisers.{name}" for name, each in own.items() if each.__module__ == initialisers.__name__}
    return found


@dataclass(frozen=True)
class Argument:
    """One argument of a row: the kind of its values, and a value."""

    row: Row
    name: str
    kind: str
    optional: bool
    value: Any

    def call(self, value: Any) -> Any:
        return self.row.call(**{**self.row.given, self.name: value})

    def accepted(self) -> list[tuple[Any, Any]]:
        """Pairs of values with the same effect: NumPy's, and Python's own."""
        v, axes = self.value, self.row.axes
        if self.kind == "flag":
            return [(np.bool_(v), bool(v))]
        if self.kind == "choice":
            return [(np.str_(v), v)] if isinstance(v, str) else []
        if self.kind == "name":
            return []
        if self.kind in ("number", "pair", "upstream"):
            kinds = (np.float64, np.float32, np.float16)
            if self.kind == "pair":
                pairs = [(tuple(map(kind, v)), tuple(float(kind(each)) for each in v)) for kind in kinds]
                return [
                    *pairs,
                    (np.array(v), v),
                    (list(v), v),
                    (np.array(v, np.float32), tuple(np.float32(v).tolist())),
                ]
            given = [(kind(v), float(kind(v))) for kind in kinds]
            return [*given, (np.int64(1), 1)] if self.row.open else given
        kinds = (np.int64, np.int32, np.uint8 if not isinstance(v, int) or v >= 0 else np.int8)
        if self.kind == "integer":
            return [(kind(v), v) for kind in kinds]
        several = tuple(v) if isinstance(v, tuple | list) else (v,) * axes
        spelled = [(tuple(map(kind, several)), several) for kind in kinds] if axes else []
        if isinstance(v, int):
            spelled += [(kind(v), v) for kind in kinds]
        if axes:
            spelled.append(([np.int16(each) for each in several], several))
        return spelled

    def refused(self) -> list[Any]:
        """Values that must be refused."""
        axes, nothing = self.row.axes, [] if self.optional else [None]
        # A name may be text.
        text = [] if self.name == "name" else ["3"]
        usual = [True, np.True_, *text, [[0.5]], {}, 1j, *nothing]
        if self.kind == "flag":
            return [1, 0, "yes", float("nan"), np.int64(1), [], *nothing]
        if self.kind == "choice":
            return ["no such", 3.5, True, np.ones(2), np.array("mean"), [], *nothing]
        if self.kind == "name":
            return [1.5, None, True, np.ones(2)]
        if self.kind == "upstream":
            return [True, "1", [1.0], {}, 1j, None]
        if self.kind == "number":
            odd = [] if self.name in self.row.open else [float("nan"), np.float32("nan"), np.float16("nan"), 10**400]
            by_channel = self.row.call is augment.Normalise or self.name == "scale_factor"
            more = [] if by_channel or self.name == "metric" else [np.array(0.5)]
            return [*usual, *odd, *more, *([] if by_channel else [[0.5], (0.5,)]), np.ones(2)]
        if self.kind == "pair":
            nan = float("nan")
            return [
                *usual,
                0.9,
                (0.9,),
                (0.1, 0.2, 0.3),
                (),
                "ab",
                b"ab",
                {0.9, 0.8},
                (nan, 0.9),
                (0.9, "a"),
                np.ones((2, 2)),
            ]
        if self.kind == "integer":
            return [*usual, float("nan"), 1.5, np.float64(2.0), [3], np.array(3), np.array([3])]
        wrong = [(True,) * axes, (1.5,) * axes, ("3",) * axes, (3,) * (axes + 1)] if axes else [(True,), (1.5,)]
        if self.name in ("input_shape", "shape", "shards", "spatial", "normalized_shape", "x_shape"):
            wrong = [each for each in wrong if each != (3,) * (axes + 1)]
        return [*usual, float("nan"), 1.5, *wrong, b"\1" * max(axes, 1), np.array(3)]


def arguments() -> Iterator[tuple[str, Argument]]:
    """All arguments of all rows that are numbers, flags or choices, by name."""
    for name, row in TABLE.items():
        for parameter in inspect.signature(row.of or row.call).parameters.values():
            annotation = str(parameter.annotation).replace("typing.", "").replace("collections.abc.", "")
            kind = kind_of(parameter.name, annotation, row)
            if kind is None:
                continue
            value = row.given.get(parameter.name, parameter.default)
            yield f"{name}({parameter.name})", Argument(row, parameter.name, kind, "None" in annotation, value)


CHOICES = {
    "approximate",
    "padding_mode",
    "mode",
    "threshold_mode",
    "anneal_strategy",
    "schedule_each",
    "on_nan",
    "numerics",
    "precision",
    "algorithms",
}


def kind_of(name: str, annotation: str, row: Row) -> str | None:
    if name in ("dy",) and (annotation == "Any | float" or isinstance(row.given.get("dy"), float)):
        return "upstream"
    if annotation in ("bool", "<class 'bool'>"):
        # Functions test whether it is true, as Python does.
        return (
            "flag" if inspect.isclass(row.of or row.call) or (row.of or row.call) in (nn.fit, nn.Layer.train) else None
        )
    if name in CHOICES or "Literal[" in annotation:
        return "choice"
    plain = annotation.replace("<class '", "").replace("'>", "").removesuffix(" | None")
    if plain == "tuple[float, float]":
        return "pair"
    if plain in ("float", "float | Sequence[float]"):
        return "number"
    if plain in ("int", "EarlyStopping | int", "xpnn.training.early_stopping.EarlyStopping | int"):
        return "integer"
    if re.search(r"\bint\b", plain) and "Callable" not in plain and name != "stages":
        return "size"
    given = row.given.get(name)
    if annotation == "<class 'inspect._empty'>" and given is not None:
        return {int: "integer", float: "number", tuple: "size"}.get(type(given))
    return None
