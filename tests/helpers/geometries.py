"""Cases of the parity catalogue drawn by Hypothesis: layers with windows, norms, layers of shapes and losses.

Every draw is a case with a small input, which `xpnn.testing.mode_runs.ModeRuns` runs in all modes. Windows may be
larger than the input and hold only padding; a case that all modes must refuse is a case too.
"""

from functools import partial
from math import prod

from hypothesis import strategies as st

import xpnn as nn
from xpnn.testing.cases import LayerCase, LossCase, inputs

LAYOUTS = st.sampled_from(["plain", "plain", "plain", "strided", "channels last", "read-only"])
SAMPLES = st.sampled_from([0, 1, 2, 2, 3])
# Numbers of channels: one, few, and as many as fill the lanes of compiled kernels.
CHANNELS = st.sampled_from([1, 1, 2, 3, 4, 8, 17, 32])
MAKERS = st.sampled_from([inputs.real, inputs.real, inputs.real, inputs.ties, inputs.with_nan, inputs.with_infinity])
DTYPES = st.sampled_from(["float32", "float32", "float32", "float64"])


def per_axis(axes, least, most):
    """A number for all axes, or one for each."""
    one = st.integers(least, most)
    return one | st.tuples(*[one] * axes)


def paddings(axes, most):
    """Every form of padding except words."""
    pair = st.tuples(st.integers(0, most), st.integers(0, most))
    return st.integers(0, most) | st.tuples(*[st.integers(0, most)] * axes) | st.tuples(*[pair] * axes)


def along(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


@st.composite
def fitting(draw, axes, channels, kernel, dilation, padding):
    """A shape into which a window usually fits: from one cell too small to some cells larger."""
    if isinstance(padding, str):
        total = [0] * axes
    else:
        total = [sum(each) if isinstance(each, tuple) else 2 * each for each in along(padding, axes)]
    spatial = []
    for k, d, p in zip(along(kernel, axes), along(dilation, axes), total, strict=True):
        least = max(1, d * (k - 1) + 1 - p)
        more = draw(st.integers(0, {1: 9, 2: 6, 3: 3}[axes]))
        spatial.append(draw(st.sampled_from([least + more] * 9 + [least - 1])))
    return (draw(SAMPLES), channels, *spatial)


@st.composite
def shapes(draw, axes, channels=CHANNELS, least=1):
    most = {1: 12, 2: 8, 3: 5}[axes]
    spatial = draw(st.tuples(*[st.integers(least, most) | st.just(max(1, least))] * axes))
    return (draw(SAMPLES), draw(channels), *spatial)


def case(draw, name, op, terms, build, shape, *, make=None, layout=True, training=True):
    """A case of a layer; an empty input can hold no NaN."""
    make = make or (draw(MAKERS) if prod(shape) else inputs.real)
    options = ", ".join(f"{key}={value}" for key, value in build.keywords.items())
    arguments = ", ".join(map(str, build.args))
    dtype = draw(DTYPES)
    where = draw(LAYOUTS) if layout else "plain"
    full = f"{name}/{arguments}; {options}; {shape} {make.__name__}"
    return LayerCase(full, op, terms, dtype, build, shape, make, where, training)


@st.composite
def convolutions(draw):
    axes = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = groups * draw(st.sampled_from([1, 2, 3, 8, 17]))
    features = groups * draw(st.sampled_from([1, 2, 3, 16, 18]))
    if draw(st.booleans()) and groups > 1:
        channels = groups
    kernel = draw(st.just(3) | per_axis(axes, 1, 4))
    options = {
        "stride": draw(st.just(1) | per_axis(axes, 1, 4)),
        "padding": draw(paddings(axes, 4) | st.sampled_from(["same", "same_lower", "valid"])),
        "dilation": draw(st.just(1) | per_axis(axes, 1, 3)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    shape = draw(fitting(axes, channels, kernel, options["dilation"], options["padding"]))
    build = partial(getattr(nn, f"Conv{axes}d"), channels, features, kernel, **options)
    sides = kernel if isinstance(kernel, tuple) else (kernel,) * axes
    terms = {
        "forward": prod(sides) * channels // groups,
        "input": prod(sides) * features // groups,
        "parameter": shape[0] * prod(n + 8 for n in shape[2:]),
    }
    return case(draw, f"Conv{axes}d", "convolution", terms, build, shape)


@st.composite
def depthwise(draw):
    axes = draw(st.integers(1, 3))
    channels = draw(st.sampled_from([2, 3, 8, 16, 20]))
    options = {
        "stride": draw(per_axis(axes, 1, 3)),
        "padding": draw(paddings(axes, 4) | st.sampled_from(["same", "same_lower", "valid"])),
        "dilation": draw(per_axis(axes, 1, 3)),
        "groups": channels,
    }
    kernel = draw(per_axis(axes, 1, 4))
    shape = draw(fitting(axes, channels, kernel, options["dilation"], options["padding"]))
    features = channels * draw(st.sampled_from([1, 1, 2]))
    build = partial(getattr(nn, f"Conv{axes}d"), channels, features, kernel, **options)
    terms = {"forward": 4**axes, "input": 2 * 4**axes, "parameter": shape[0] * prod(n + 8 for n in shape[2:])}
    return case(draw, f"Conv{axes}d", "convolution", terms, build, shape)


@st.composite
def transposed(draw):
    axes = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2]))
    channels = groups * draw(st.sampled_from([1, 2, 3, 16]))
    features = groups * draw(st.sampled_from([1, 2, 3, 16]))
    stride, dilation = draw(per_axis(axes, 1, 3)), draw(st.just(1) | per_axis(axes, 1, 3))
    sides = zip(along(stride, axes), along(dilation, axes), strict=True)
    extra = tuple(draw(st.sampled_from([*[*range(max(each))] * 8, 3])) for each in sides)
    kernel = draw(per_axis(axes, 1, 4))
    reach = zip(along(kernel, axes), along(dilation, axes), strict=True)
    cut = tuple(draw(st.integers(0, (k - 1) * d // 2)) for k, d in reach)
    options = {
        "stride": stride,
        "padding": draw(st.sampled_from([cut] * 9 + [draw(paddings(axes, 3))])),
        "output_padding": extra,
        "groups": groups,
        "bias": draw(st.booleans()),
        "dilation": dilation,
    }
    most = {1: 8, 2: 5, 3: 3}[axes]
    sizes = st.tuples(*[st.sampled_from([0, *[*range(1, most + 1)] * 8])] * axes)
    shape = (draw(SAMPLES), channels, *draw(sizes))
    build = partial(getattr(nn, f"ConvTranspose{axes}d"), channels, features, kernel, **options)
    cells = shape[0] * prod(3 * n + 12 for n in shape[2:])
    terms = {"forward": 4**axes * channels // groups, "input": 4**axes * features // groups, "parameter": cells}
    # Of an input's NaN what is cut off the output makes NaN of a weight's gradient in some ways, and not in others.
    return case(draw, f"ConvTranspose{axes}d", "convolution", terms, build, shape, make=inputs.real)


@st.composite
def pools(draw):
    axes = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["MaxPool", "AvgPool", "LpPool"]))
    words = st.sampled_from(["same", "same_lower", "valid"])
    options = {
        "stride": draw(st.none() | per_axis(axes, 1, 4)),
        "padding": draw(st.just(0) | paddings(axes, 3) | words),
        "ceil_mode": draw(st.booleans()),
    }
    kernel = draw(per_axis(axes, 1, 4))
    arguments = (kernel,)
    if not isinstance(options["padding"], str) and draw(st.integers(0, 9)):
        # Mostly at most half a window.
        half = [k // 2 for k in along(kernel, axes)]
        options["padding"] = tuple((draw(st.integers(0, h)), draw(st.integers(0, h))) for h in half)
    if kind == "AvgPool":
        options |= {
            "count_include_pad": draw(st.booleans()),
            "divisor_override": draw(st.none() | st.none() | st.integers(1, 5)),
        }
    options["dilation"] = draw(st.just(1) | per_axis(axes, 1, 4))
    if kind == "MaxPool":
        options["return_indices"] = draw(st.booleans())
    make = None
    if kind == "LpPool":
        arguments = (draw(st.sampled_from([1, 2, 2.0, 3, 1.5])), *arguments)
        # An infinity has an infinite norm and no slope that all would agree on.
        make = draw(st.sampled_from([inputs.real, inputs.zeros]))
    shape = draw(fitting(axes, draw(CHANNELS), kernel, options.get("dilation", 1), options["padding"]))
    build = partial(getattr(nn, f"{kind}{axes}d"), *arguments, **options)
    op = {"MaxPool": "max pool", "AvgPool": "average pool", "LpPool": "Lp pool"}[kind]
    terms = {"forward": 4**axes, "input": 4**axes}
    training = draw(st.sampled_from([True, True, True, False]))
    return case(draw, f"{kind}{axes}d", op, terms, build, shape, make=make, training=training)


@st.composite
def adaptive_pools(draw):
    axes = draw(st.integers(1, 3))
    shape = draw(shapes(axes, least=0))
    kind = draw(
        st.sampled_from(["AdaptiveMaxPool", "AdaptiveAvgPool", "GlobalMaxPool", "GlobalAvgPool", "GlobalLpPool"])
    )
    op = "Lp pool" if "Lp" in kind else "max pool" if "Max" in kind else "average pool"
    arguments = ()
    if kind.startswith("Adaptive"):
        one = st.none() | st.integers(1, 7)
        arguments = (draw(st.integers(1, 7) | st.tuples(*[one] * axes)),)
    make = inputs.zeros if "Lp" in kind else None
    terms = {"forward": prod(shape[2:]), "input": 8**axes}
    return case(draw, kind, op, terms, partial(getattr(nn, kind), *arguments), shape, make=make)


@st.composite
def norms(draw):
    """Statistics are of one value, which is refused, or of many: a few similar values would amplify rounding."""
    axes = draw(st.integers(1, 3))
    kind = draw(st.sampled_from([f"BatchNorm{axes}d", f"InstanceNorm{axes}d", "LayerNorm", "GroupNorm"]))
    channels = draw(st.sampled_from([1, 2, 4, 8, 18]))
    many = (6, 3, 2)[axes - 1]
    spatial = draw(st.just((1,) * axes) | st.tuples(*[st.integers(many, many + 3)] * axes))
    shape = (draw(st.sampled_from([0, 1, 2, 6])), channels, *spatial)
    per_group, options = prod(spatial), {"eps": draw(st.sampled_from([1e-5, 1e-3, 0.1]))}
    training = draw(st.sampled_from([True, True, False]))
    if kind == "LayerNorm":
        arguments = (shape[draw(st.integers(1, axes + 1)) :],)
        per_group = prod(arguments[0])
        options |= {"elementwise_affine": draw(st.booleans()), "bias": draw(st.booleans())}
    elif kind == "GroupNorm":
        groups = draw(st.sampled_from([n for n in (1, 2, 4, 9) if channels % n == 0]))
        arguments, per_group = (groups, channels), per_group * channels // groups
        options["affine"] = draw(st.booleans())
    else:
        arguments = (channels,)
        momentum = st.sampled_from([0.1, 0.5] + [None] * kind.startswith("Batch"))
        options |= {
            "momentum": draw(momentum),
            "affine": draw(st.booleans()),
            "track_running_stats": draw(st.booleans()),
        }
        per_group *= shape[0] if kind.startswith("Batch") else 1
    if 1 < per_group < 6:
        shape = (6 if kind.startswith("Batch") else shape[0], channels, *(6,) * axes)
        if kind == "LayerNorm":
            arguments = (shape[2:],)
        per_group = 6
    cells = prod(shape) + 1
    terms = {"forward": cells, "input": cells, "parameter": cells, "buffer": cells}
    make = inputs.real if per_group < 2 or not prod(shape) else draw(st.sampled_from([inputs.real, inputs.with_nan]))
    build = partial(getattr(nn, kind), *arguments, **options)
    return case(draw, kind, "normalisation", terms, build, shape, make=make, training=training)


@st.composite
def rearrangements(draw):
    axes = draw(st.integers(1, 3))
    shape, kind = draw(shapes(axes, least=0)), draw(st.sampled_from(["Pad", "Upsample", "Flatten", "Identity"]))
    op, terms, arguments = "copy", {}, ()
    if kind == "Pad":
        arguments = (draw(paddings(axes, 3)), draw(st.sampled_from([0.0, 1.5, -2])))
    if kind == "Upsample":
        op, terms, arguments = "spread", {"input": 27}, (draw(per_axis(axes, 1, 3)),)
    if kind == "Flatten":
        first = draw(st.integers(0, axes + 1))
        arguments = (first, draw(st.integers(first, axes + 1) | st.just(-1)))
    return case(draw, kind, op, terms, partial(getattr(nn, kind), *arguments), shape)


REGRESSIONS = ("MSE", "MAE", "L2", "MSLE", "MAPE")
ROBUST = ("Huber", "SmoothL1")
BINARY = ("BinaryCrossEntropy", "BinaryCrossEntropyWithLogits")
CLASSES = ("CrossEntropy", "NLL", "KLDivergence")


@st.composite
def losses(draw):
    rest = draw(st.sampled_from([(), (3,), (2, 3)]))
    shape = (draw(SAMPLES), draw(st.sampled_from([1, 2, 5])), *rest)
    weight = [0.5, 1.0, 2.0, 0.25, 1.5][: shape[1]]
    kind = draw(st.sampled_from((*REGRESSIONS, *ROBUST, *BINARY, *CLASSES, *CLASSES)))
    options = {} if kind == "L2" else {"reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    make, target = inputs.positive, inputs.positive
    if kind in ("Huber", "SmoothL1"):
        options["delta" if kind == "Huber" else "beta"] = draw(st.sampled_from([0.3, 1.0, 2.0]))
        make = target = inputs.real
    if kind == "BinaryCrossEntropy":
        make, target = inputs.probability, draw(st.sampled_from([inputs.binary, inputs.probability]))
    if kind == "BinaryCrossEntropyWithLogits":
        make, target = draw(st.sampled_from([inputs.real, inputs.spread])), inputs.binary
    if kind == "CrossEntropy":
        make = draw(st.sampled_from([inputs.real, inputs.spread]))
        target = draw(st.sampled_from([inputs.classes, inputs.classes_with_gaps, inputs.distribution]))
        options["label_smoothing"] = draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
    if kind == "NLL":
        make, target = inputs.log_probability, draw(st.sampled_from([inputs.classes, inputs.classes_with_gaps]))
    if kind == "KLDivergence":
        make, target = inputs.log_probability, inputs.distribution
    if kind in ("CrossEntropy", "NLL"):
        options["weight"] = draw(st.none() | st.just(weight))
    name = f"{kind}/{shape} {options} {make.__name__} {target.__name__}"
    # The difference of two logarithms has the errors of both, and its square twice that.
    terms = {"forward": prod(shape) * (16 if kind == "MSLE" else 1)}
    build = partial(getattr(nn, kind), **options)
    return LossCase(name, "loss", terms, draw(DTYPES), build, shape, make, target)


FAMILIES = {
    "convolutions": convolutions(),
    "depthwise convolutions": depthwise(),
    "transposed convolutions": transposed(),
    "pools": pools(),
    "adaptive pools": adaptive_pools(),
    "norms": norms(),
    "rearrangements": rearrangements(),
    "losses": losses(),
}
