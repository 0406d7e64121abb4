"""The hint in the error for a name that a module lacks: what PyTorch's, Keras's and former names are called here.

A value is what to write instead, from ``nn.`` on; several are separated by blanks. Only names that a near match would
not find are listed, and those for which it would find something else, with ``""`` if nothing here computes the same.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType

OPTIMIZERS = "SGD Adam AdamW RMSprop Adagrad Adadelta Adamax NAdam RAdam Lion"
SCHEDULES = "StepLR ExponentialLR CosineLR OneCycleLR ReduceLROnPlateau"
LOSSES = "CrossEntropy NLL BinaryCrossEntropy MSE MAE Huber"
ACTIVATIONS = "ReLU GELU SiLU Sigmoid Tanh Softmax"
# Names of which there is one for each number of axes.
BY_AXES = ("Conv", "ConvTranspose", "MaxPool", "AvgPool", "LpPool", "BatchNorm", "InstanceNorm")

#: ``nn.NAME``
PACKAGE = {
    # Layers
    "Linear": "Dense",
    "LazyLinear": "Dense",
    "Module": "Layer",
    "Lambda": "Layer",
    "ParameterList": "Layer",
    "ParameterDict": "Layer",
    "Model": "Sequential Graph Layer",
    "ModuleList": "Sequential Parallel",
    "ModuleDict": "Sequential Graph",
    "ConstantPad1d": "Pad",
    "ConstantPad2d": "Pad",
    "ConstantPad3d": "Pad",
    "ZeroPad1d": "Pad",
    "ZeroPad2d": "Pad",
    "ZeroPad3d": "Pad",
    **{f"{mode}Pad{axes}d": "Pad" for mode in ("Reflection", "Replication", "Circular") for axes in (1, 2, 3)},
    "ZeroPadding1D": "Pad",
    "ZeroPadding2D": "Pad",
    "ZeroPadding3D": "Pad",
    "UpsamplingNearest2d": "Upsample",
    "UpsamplingBilinear2d": "Upsample",
    "UpSampling1D": "Upsample",
    "UpSampling2D": "Upsample",
    "UpSampling3D": "Upsample",
    "Unflatten": "Reshape",
    "Swish": "SiLU",
    "Activation": ACTIVATIONS,
    "RReLU": "",
    "Concatenate": "Concat Parallel",
    "Mul": "Multiply",
    "GraphModule": "Graph",
    "DataParallel": "",
    "parallel": "",
    "Transformer": "MultiHeadAttention models.vit",
    "TransformerEncoder": "MultiHeadAttention models.vit",
    "TransformerEncoderLayer": "MultiHeadAttention Residual",
    **{name: " ".join(f"{name}{axes}d" for axes in (1, 2, 3)) for name in BY_AXES},
    "MaxUnpool1d": "",
    "MaxUnpool2d": "",
    "MaxUnpool3d": "",
    "MaxPooling1D": "MaxPool1d",
    "MaxPooling2D": "MaxPool2d",
    "MaxPooling3D": "MaxPool3d",
    "AveragePooling1D": "AvgPool1d",
    "AveragePooling2D": "AvgPool2d",
    "AveragePooling3D": "AvgPool3d",
    "GlobalMaxPooling1D": "GlobalMaxPool",
    "GlobalMaxPooling2D": "GlobalMaxPool",
    "GlobalMaxPooling3D": "GlobalMaxPool",
    "GlobalAveragePooling1D": "GlobalAvgPool",
    "GlobalAveragePooling2D": "GlobalAvgPool",
    "GlobalAveragePooling3D": "GlobalAvgPool",
    "Conv1DTranspose": "ConvTranspose1d",
    "Conv2DTranspose": "ConvTranspose2d",
    "Conv3DTranspose": "ConvTranspose3d",
    "DepthwiseConv2D": "Conv2d",
    "SeparableConv2D": "Conv2d",
    "SpatialDropout1D": "Dropout1d",
    "SpatialDropout2D": "Dropout2d",
    "SpatialDropout3D": "Dropout3d",
    "SyncBatchNorm": "BatchNorm2d BatchNorm1d",
    "BatchNormalization": "BatchNorm2d BatchNorm1d",
    "EmbeddingBag": "",
    "LayerNormalization": "LayerNorm",
    "GroupNormalization": "GroupNorm",
    # Losses
    "CrossEntropyLoss": "CrossEntropy",
    "CategoricalCrossentropy": "CrossEntropy",
    "SparseCategoricalCrossentropy": "CrossEntropy",
    "NLLLoss": "NLL",
    "MSELoss": "MSE",
    "MeanSquaredError": "MSE",
    "MeanAbsoluteError": "MAE",
    "MeanAbsolutePercentageError": "MAPE",
    "MeanSquaredLogError": "MSLE",
    "MeanSquaredLogarithmicError": "MSLE",
    "MAELoss": "MAE",
    "L1Loss": "MAE",
    "L2Loss": "MSE L2",
    "HuberLoss": "Huber",
    "SmoothL1Loss": "SmoothL1",
    "KLDiv": "KLDivergence",
    "KLDivLoss": "KLDivergence",
    "FocalLoss": "Focal",
    "BinaryFocalCrossentropy": "Focal",
    "CategoricalFocalCrossentropy": "Focal",
    "DiceLoss": "Dice",
    "BCE": "BinaryCrossEntropy",
    "BCEWithLogits": "BinaryCrossEntropyWithLogits",
    "BCELoss": "BinaryCrossEntropy",
    "BCEWithLogitsLoss": "BinaryCrossEntropyWithLogits",
    # Training
    "ASGD": "",
    "Rprop": "",
    "SequentialLR": "",
    "CosineAnnealingLR": "CosineLR",
    "CosineDecay": "CosineLR",
    "ExponentialDecay": "ExponentialLR",
    "LearningRateScheduler": SCHEDULES,
    "ModelCheckpoint": "Checkpoints",
    "CSVLogger": "History",
    "Dataset": "DataLoader",
    "TensorDataset": "DataLoader",
    "Trainer": "fit",
    "train": "fit",
    "NumericalTrouble": "NonFiniteError",
    "clip_grad_norm_": "clip_grad_norm",
    "clip_grad_value_": "clip_grad_value",
    "checkpoint": "Checkpointed Checkpoints",
    "load_state_dict": "load",
    "load_model": "load",
    "load_weights": "load",
    "save_model": "save",
    "save_weights": "save",
    "accuracy": "evaluate",
    "backward": "Layer.backward Loss.backward",
    "compile": "Backend.compile",
    # Nets and arrays of other programs
    "torch": "from_torch to_torch as_torch_module",
    "as_torch": "as_torch_module to_torch",
    "fx": "from_torch",
    "onnx": "to_onnx from_onnx",
    "export": "to_onnx to_torch",
    "export_onnx": "to_onnx",
    "onnx_export": "to_onnx",
    "load_onnx": "from_onnx",
    "import_onnx": "from_onnx",
    "from_dlpack": "Backend.from_dlpack",
    "dlpack": "Backend.from_dlpack",
    "manual_seed": "random.Generator",
    "seed": "random.Generator",
    "set_backend": "use_backend",
    # Initial values, augmentation, nets
    "zeros_": "initialisers.constant",
    "ones_": "initialisers.constant",
    "xavier_uniform_": "initialisers.glorot_uniform",
    "xavier_normal_": "initialisers.glorot_normal",
    "kaiming_uniform_": "initialisers.he_uniform",
    "kaiming_normal_": "initialisers.he_normal",
    "Normalization": "augment.Normalise",
    "RandomCrop": "augment.PadAndCrop",
    "RandomErasing": "augment.Cutout",
    "RandomFlip": "augment.Flip",
    "RandomHorizontalFlip": "augment.Flip",
    "vgg11": "models.vgg11_bn",
    "vgg16": "models.vgg11_bn",
    # Modules that are none here, and those of another name
    "optim": OPTIMIZERS,
    "optimizers": OPTIMIZERS,
    "lr_scheduler": SCHEDULES,
    "schedules": SCHEDULES,
    "losses": LOSSES,
    "activations": ACTIVATIONS,
    "callbacks": "EarlyStopping Checkpoints",
    "constraints": "",
    "data": "DataLoader",
    "utils": "clip_grad_norm clip_grad_value DataLoader",
    "init": "initialisers",
    "initializers": "initialisers",
    "applications": "models",
    "preprocessing": "augment",
    "transforms": "augment",
    "F": "functional",
}

#: ``nn.functional.NAME``
FUNCTIONS = {
    "linear": "functional.dense",
    "kl_div": "functional.kl_divergence",
    "nll_loss": "functional.nll",
    "mse_loss": "functional.mse",
    "l1_loss": "functional.mae",
    "l2_loss": "functional.mse functional.l2",
    "huber_loss": "functional.huber",
    "bce": "functional.binary_cross_entropy",
    "categorical_crossentropy": "functional.cross_entropy",
    "sparse_categorical_crossentropy": "functional.cross_entropy",
    "mean_squared_error": "functional.mse",
    "mean_absolute_error": "functional.mae",
    "mean_absolute_percentage_error": "functional.mape",
    "mean_squared_log_error": "functional.msle",
    "mean_squared_logarithmic_error": "functional.msle",
    "swish": "functional.silu",
    "rrelu": "",
    "dropout1d": "Dropout1d",
    "dropout2d": "Dropout2d",
    "dropout3d": "Dropout3d",
    "alpha_dropout": "",
    "scaled_dot_product_attention": "functional.attention",
    "multi_head_attention_forward": "functional.attention",
    "pad": "functional.pad_constant functional.pad_reflect functional.pad_replicate functional.pad_circular",
    "interpolate": "functional.upsample",
    "global_avg_pool": "functional.adaptive_avg_pool",
    "global_max_pool": "functional.adaptive_max_pool",
    "batch_normalization": "functional.batch_norm",
}


def missing(module: str, name: str, instead: Mapping[str, str], public: Iterable[str]) -> AttributeError:
    """The error for a name that a module lacks, with what was perhaps meant.

    Parameters
    ----------
    module : str
        The module's name, for the message.
    name : str
        The name that was looked up.
    instead : mapping
        What to write instead of known names of other libraries, as in `PACKAGE`.
    public : iterable of str
        All that exists, from ``nn.`` on: ``"Conv2d"``, ``"functional.relu"``. Near matches are looked for in the last
        parts of these, whatever their case and underscores.
    """
    message = f"module {module!r} has no attribute {name!r}"
    # Names that begin with an underscore are looked up by tools (copy, inspect, IPython), which need no hint.
    if not name.startswith("_"):
        meant = instead[name].split() if name in instead else _near(name, public)
        if meant:
            choices = [f"nn.{each}" for each in meant]
            message += f"; did you mean {' or '.join(filter(None, [', '.join(choices[:-1]), choices[-1]]))}?"
    # Given the name, Python adds no suggestion of its own when it prints the error.
    return AttributeError(message, name=name)


def public(module: ModuleType) -> list[str]:
    """The names in a module's ``__all__``, or else of all public functions and classes that are defined in it."""
    defined = (
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )
    return list(getattr(module, "__all__", defined))


def _near(name: str, public: Iterable[str]) -> list[str]:
    """The public names that are the same but for case and underscores, else the nearest one."""
    by_spelling: dict[str, list[str]] = {}
    for each in public:
        by_spelling.setdefault(_spelling(each.rpartition(".")[2]), []).append(each)
    wanted = _spelling(name)
    closest = [wanted] if wanted in by_spelling else get_close_matches(wanted, by_spelling, 1, 0.75)
    return by_spelling[closest[0]][:2] if closest else []


def _spelling(name: str) -> str:
    return name.replace("_", "").lower()
