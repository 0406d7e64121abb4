"""Valid arguments for every pure function."""

import numpy as np


def array(*shape, seed=0):
    """Numbers between 0.25 and 0.75, which suit every function."""
    return np.random.default_rng(seed).uniform(0.25, 0.75, shape).astype(np.float32)


PLANE, LINE, ROWS, DY = array(2, 4, 6, 5), array(2, 4, 6), array(3, 4), array(3, 4, seed=1)
TARGET, CLASSES = array(3, 4, seed=2), np.array([0, 3, 1])
POOLED, SHAPE = array(2, 4, 3, 2), (2, 4, 6, 5)
FROM_INPUT = (
    *("celu", "clip", "elu", "gelu", "hard_shrink", "hard_sigmoid", "hard_swish", "hard_tanh", "leaky_relu"),
    *("log_sigmoid", "mish", "relu6", "selu", "silu", "soft_shrink", "softplus", "softsign", "tanh_shrink"),
)
FROM_OUTPUT = ("hardmax", "log_softmax", "relu", "sigmoid", "softmax", "softmin", "tanh")
LOSSES = (
    *("binary_cross_entropy", "huber", "mae", "mape"),
    *("mse", "msle", "smooth_l1"),
)
SUMS = ("l1", "l2")  # losses without reduction


def with_backward(name, forward, **backward):
    """Arguments of a function and of its gradient: the same, but those in ``without``, and the ones that are given."""
    without = backward.pop("without", ())
    given = {key: value for key, value in forward.items() if key not in without}
    return {name: forward, f"{name}_backward": backward | given}


def calls():
    """Valid arguments, by name of the function."""
    found = {name: {"x": ROWS} for name in ("erf", "erfc")}
    for name in FROM_INPUT:
        found |= with_backward(name, {"x": ROWS}, dy=DY)
    for name in FROM_OUTPUT:
        found |= with_backward(name, {"x": ROWS}, dy=DY, y=ROWS, without=("x",))
    found |= with_backward("threshold", {"x": ROWS, "threshold": 0.4, "value": 0.1}, dy=DY)
    found |= with_backward("glu", {"x": ROWS}, dy=array(3, 2))
    found |= with_backward("prelu", {"x": ROWS, "weight": array(4)}, dy=DY)
    for name in (*LOSSES, *SUMS):
        found |= with_backward(name, {"prediction": ROWS, "target": TARGET}, dy=1.0)
    found |= with_backward("kl_divergence", {"log_p": ROWS, "target": TARGET}, dy=1.0)
    logits = {"logits": ROWS, "target": TARGET, "weight": array(4), "pos_weight": array(4)}
    found |= with_backward("binary_cross_entropy_with_logits", logits, dy=1.0)
    found |= with_backward("cross_entropy", {"logits": ROWS, "target": CLASSES, "weight": array(4)}, dy=1.0)
    found |= with_backward("focal", {"logits": ROWS, "target": CLASSES, "alpha": array(4)}, dy=1.0)
    found |= with_backward("dice", {"prediction": ROWS, "target": array(*ROWS.shape)}, dy=1.0)
    found |= with_backward("nll", {"log_p": ROWS, "target": CLASSES, "weight": array(4)}, dy=1.0)
    bias = ("bias",)
    weights = {"weight": array(5, 4), "bias": array(5)}
    found |= with_backward("dense", {"x": ROWS, **weights}, dy=array(3, 5), without=bias)
    heads = {"q": PLANE, "k": PLANE, "v": PLANE, "keep": np.arange(288).reshape(2, 4, 6, 6) % 3 > 0, "p": 0.5}
    found |= with_backward("attention", heads, dy=array(2, 4, 6, 5, seed=1))
    found["embedding"] = {"index": CLASSES * 0, "weight": array(5, 4)}
    found["embedding_backward"] = {"dy": DY, "index": CLASSES, "num_embeddings": 5}
    mask = {"keep": np.arange(12).reshape(3, 4) % 3 > 0, "p": 0.5}
    found |= {"dropout": {"x": ROWS, **mask}, "dropout_backward": {"dy": DY, **mask}}
    weights = {"weight": array(3, 4, 3, 2), "bias": array(3)}
    found |= with_backward("conv", {"x": PLANE, **weights}, dy=array(2, 3, 4, 4), without=bias)
    weights = {"weight": array(4, 3, 3, 2), "bias": array(3)}
    found |= with_backward("conv_transpose", {"x": PLANE, **weights}, dy=array(2, 3, 8, 6), without=bias)
    channels = {name: array(4) for name in ("weight", "bias", "mean", "var")}
    for name in ("batch_norm", "instance_norm"):
        found |= with_backward(name, {"x": LINE, **channels}, dy=array(2, 4, 6, seed=1), without=bias)
    cells = {"normalized_shape": (4, 6), "weight": array(4, 6), "bias": array(4, 6)}
    found |= with_backward("layer_norm", {"x": LINE, **cells}, dy=array(2, 4, 6, seed=1), without=bias)
    cells = {"normalized_shape": (4, 6), "weight": array(4, 6)}
    found |= with_backward("rms_norm", {"x": LINE, **cells}, dy=array(2, 4, 6, seed=1))
    found |= with_backward("local_response_norm", {"x": PLANE, "size": 3}, dy=array(*SHAPE, seed=1))
    groups = {"num_groups": 2, "weight": array(4), "bias": array(4)}
    found |= with_backward("group_norm", {"x": LINE, **groups}, dy=array(2, 4, 6, seed=1), without=bias)
    found |= with_backward("max_pool", {"x": PLANE, "kernel_size": 2}, dy=POOLED)
    x = {"x_shape": SHAPE, "without": ("x",)}
    found |= with_backward("avg_pool", {"x": PLANE, "kernel_size": 2}, dy=POOLED, **x)
    found |= with_backward("lp_pool", {"x": PLANE, "norm_type": 2.0, "kernel_size": 2}, dy=POOLED, y=POOLED + 1)
    found |= with_backward("adaptive_avg_pool", {"x": PLANE, "output_size": (3, 2)}, dy=POOLED, **x)
    indices = np.zeros((2, 4, 3, 2), np.int64)
    found |= with_backward("adaptive_max_pool", {"x": PLANE, "output_size": (3, 2)}, dy=POOLED, indices=indices, **x)
    for mode in ("constant", "reflect", "replicate", "circular"):
        found |= with_backward(f"pad_{mode}", {"x": PLANE, "padding": 1}, dy=array(2, 4, 8, 7), **x)
    found |= with_backward("upsample", {"x": PLANE, "scale_factor": 1.5}, dy=array(2, 4, 9, 7), **x)
    found |= with_backward("pixel_shuffle", {"x": PLANE, "upscale_factor": 2}, dy=array(2, 1, 12, 10), without=("x",))
    found |= with_backward("pixel_unshuffle", {"x": POOLED, "downscale_factor": 1}, dy=POOLED, without=("x",))
    found |= with_backward("upsample_nearest", {"x": PLANE, "scale_factor": 2}, dy=array(2, 4, 6, 10), without=("x",))
    return found


CALLS = calls()
