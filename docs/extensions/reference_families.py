"""The pages of the reference: their titles, and the modules whose public names they hold, in families.

``module`` stands for all public names that are defined in it, ``module:Name`` for those that begin so. Every public
name is on one page; the build fails for one that is on none.
"""

_N = "layers.normalisation."
_A = "layers.activations."
_L = "layers.losses."
_O = "training.optimizers."

FAMILIES: dict[str, dict[str, str]] = {
    "Convolution": {
        "Convolution": "layers.convolution.conv",
        "Transposed convolution": "layers.convolution.conv_transpose",
    },
    "Pooling": {
        "Max pooling": "layers.pool.maximum layers.pool.layers:MaxPool",
        "Average pooling": "layers.pool.average layers.pool.layers:AvgPool",
        "Lp pooling": "layers.pool.lp layers.pool.layers:LpPool",
        "Adaptive and global pooling": (
            "layers.pool.adaptive_layers layers.pool.adaptive_maximum layers.pool.adaptive_average"
        ),
    },
    "Dense layers and sequences": {
        "Dense": "layers.dense",
        "Embeddings": "layers.embedding",
        "Attention": "layers.attention layers.multi_head_attention",
    },
    "Activations": {
        "Rectifiers": _A + "rectifiers",
        "Smooth rectifiers": _A + "smooth",
        "Sigmoids": _A + "sigmoids",
        "Clipping": _A + "clipping",
        "Shrinking": _A + "shrinking",
        "Gated linear unit": _A + "gated",
        "Softmax": _A + "softmax",
        "Hardmax": _A + "hardmax",
        "Error function": _A + "erf",
    },
    "Normalisation and dropout": {
        "Batch norm": _N + "batch_norm",
        "Layer norm": _N + "layer_norm",
        "RMS norm": _N + "rms_norm",
        "Group norm": _N + "group_norm",
        "Instance norm": _N + "instance_norm",
        "Local response norm": _N + "local_response_norm",
        "Dropout": "layers.dropout",
    },
    "Shape and size": {
        "Flatten, reshape, permute": "layers.reshaping.flatten layers.reshaping.reshape layers.reshaping.permute",
        "Padding": "layers.reshaping.pad",
        "Upsampling": "layers.reshaping.upsample",
        "Pixel shuffle": "layers.reshaping.pixel_shuffle",
    },
    "Losses": {
        "Losses of regression": _L + "regression",
        "Huber and smooth L1": _L + "huber",
        "Cross-entropy": _L + "cross_entropy",
        "Negative log-likelihood": _L + "nll",
        "Binary cross-entropy": _L + "binary_cross_entropy",
        "Kullback-Leibler divergence": _L + "kl_divergence",
        "Focal loss": _L + "focal",
        "Dice loss": _L + "dice",
        "The base of losses": _L + "base",
    },
    "Nets of layers": {
        "The base of layers": "layers.core.layer layers.core.parameter",
        "Layers one after the other": "layers.containers.sequential layers.containers.container",
        "Branches": (
            "layers.containers.residual layers.containers.parallel layers.containers.per_input "
            "layers.containers.identity"
        ),
        "Graphs and joins": "layers.containers.graph layers.containers.joins",
        "What forward keeps": (
            "layers.core.grad_mode layers.core.release_after_backward layers.containers.checkpointed"
        ),
        "Outputs of all layers": "layers.core.layer_outputs",
        "Initial values": "layers.initialisers",
        "Models": (
            "layers.models.lenet layers.models.mlp layers.models.resnet layers.models.vgg layers.models.mobilenet "
            "layers.models.unet layers.models.vit layers.models"
        ),
        "Models of torchvision": "layers.models.torchvision",
    },
    "Training": {
        "Fit, evaluate, predict": "training.fit training.evaluation",
        "Data": "training.data_loader training.samplers",
        "Augmentation": "training.augment.transform training.augment.random_changes training.augment.normalise",
        "Metrics": "training.metrics.metric training.metrics.classes training.metrics.regression",
        "History, checkpoints, stopping": (
            "training.history training.checkpoints training.checkpoint_file training.early_stopping training.ema"
        ),
        "New images": "training.saved_net.classifier training.saved_net.loading",
        "What stops a run": "training.nan_check training.out_of_memory",
        "Scaling of gradients": "training.grad_scaler",
        "Several processes": (
            "distributed.start distributed.group distributed.exchanges distributed.errors distributed.batch_norms"
        ),
    },
    "Optimizers and schedules": {
        "SGD": _O + "sgd",
        "Adam and AdamW": _O + "adam",
        "RMSprop": _O + "rmsprop",
        "Adagrad": _O + "adagrad",
        "Adadelta": _O + "adadelta",
        "Adamax": _O + "adamax",
        "NAdam": _O + "nadam",
        "RAdam": _O + "radam",
        "Lion": _O + "lion",
        "The base of optimizers": f"{_O}base {_O}decay_groups",
        "Clipping of gradients": _O + "clipping",
        "Schedules": (
            "training.schedules.decay training.schedules.cosine training.schedules.one_cycle training.schedules.plateau"
        ),
    },
    "Backends": {
        "Backends": "backends.registry backends.backend backends.lookup backends.errors",
        "Random numbers": "backends.random.generator",
    },
    "Files and other libraries": {
        "Weights": "interop.safetensors",
        "PyTorch": "interop.torch.from_torch interop.torch.to_torch interop.torch.as_module",
        "ONNX": "interop.onnx.to_onnx interop.onnx.from_onnx",
        "scikit-learn": "interop.sklearn",
    },
    "Testing": {
        "Comparisons": "testing.compare testing.difference testing.gradient_check testing.tolerances",
        "The catalogue of cases": "testing.cases testing.cases.case",
    },
}
