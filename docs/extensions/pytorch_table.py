"""The table of PyTorch's names in ``docs/guide/from_pytorch.md``: what each is called here.

    python docs/extensions/pytorch_table.py

writes the table again; with PyTorch installed also ``pytorch_names.txt``, the names that it has. What the names are
here follows from the public names and from `xpnn.common.other_names`, which error messages use too.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

import xpnn as nn
from xpnn.common import other_names

NAMES = Path(__file__).with_name("pytorch_names.txt")
PAGE = Path(__file__).parents[1] / "guide/from_pytorch.md"
START, END = "<!-- names: begin -->", "<!-- names: end -->"
#: Modules of PyTorch, how their names are chosen, and the prefixes that a name may have here.
MODULES = {
    "torch.nn": ("",),
    "torch.nn.functional": ("functional.", ""),
    "torch.optim": ("",),
    "torch.optim.lr_scheduler": ("",),
    "torch.nn.init": ("initialisers.",),
    "torch.utils.data": ("",),
    "torch.nn.utils": ("",),
}
#: Helpers and types among the public names of these modules, which nobody calls.
INTERNAL = re.compile(
    r"_.*|Buffer|Uninitialized\w+|\w*CellBase|RNNBase|Container|has_torch.*|handle_torch.*|boolean_dispatch|Optional"
    r"|assert_int_or_pair|native_.*|.*_with_indices|\w*DataPipe|DataChunk|\w*_validation.*|get_worker_info|guaranteed.*"
    r"|functional_datapipe|non_deterministic|default_c\w+|LinearCrossEntropyOptions|scaled_\w*mm|grouped_mm|NLLLoss2d"
    r"|(?:normal|uniform|constant|eye|dirac|orthogonal|sparse|kaiming_\w+[lm]|xavier_\w+[lm]|clip_grad_norm)"
)
#: What no table of the library says, because no error has to.
FURTHER = {
    "Softmax2d": "Softmax",
    "CrossMapLRN2d": "LocalResponseNorm",
    "MultiheadAttention": "MultiHeadAttention",
    "BatchSampler": "DataLoader",
    "RandomSampler": "DataLoader",
    "SequentialSampler": "DataLoader",
    "upsample_bilinear": "functional.upsample",
    "cross_entropy": "functional.cross_entropy",
}


def torch_names() -> dict[str, list[str]]:
    """Public names of PyTorch, which must be installed, by module."""
    found = {}
    for module in MODULES:
        loaded = importlib.import_module(module)
        public = getattr(loaded, "__all__", None) or [
            name
            for name, value in vars(loaded).items()
            if inspect.isclass(value) or (callable(value) and module != "torch.nn")
        ]
        found[module] = sorted(name for name in set(public) if not INTERNAL.fullmatch(name))
    for module in ("torch.nn", "torch.optim"):
        found[module] = [name for name in found[module] if name[0].isupper()]
    found["torch.nn.functional"] = [name for name in found["torch.nn.functional"] if name[0].islower()]
    return found


def stored_names() -> dict[str, list[str]]:
    """The names in the file."""
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    return {module: names for module, *names in map(str.split, lines)}


def public_names() -> set[str]:
    """All public names here, from ``nn.`` on."""
    within = [
        f"{name}.{each}"
        for name in ("functional", "initialisers", "models", "augment", "metrics")
        for each in other_names.public(getattr(nn, name))
    ]
    return {*nn.__all__, *within}


def here(module: str, name: str) -> list[str]:
    """What a name of PyTorch is called here; nothing if it has no counterpart."""
    public = public_names()
    spelt = {spelling(each): each for each in public}
    if name in FURTHER:
        return [FURTHER[name]]
    table = other_names.FUNCTIONS if module == "torch.nn.functional" else other_names.PACKAGE
    for prefix in MODULES[module]:
        for variant in (name, re.sub(r"(?<=\D)[123]d$", "", name), name.removeprefix("Lazy")):
            if prefix + variant in public:
                return [prefix + variant]
            if variant in table:
                return table[variant].split()
        if spelling(prefix + name) in spelt:
            return [spelt[spelling(prefix + name)]]
    return []


def spelling(name: str) -> str:
    """A name without case, underscores and number of axes of a function."""
    name = name.replace("_", "").lower()
    return re.sub(r"[123]d$", "", name) if name.startswith("functional.") else name


def table() -> str:
    """The table in Markdown, with names that differ in the number of axes in one row."""
    lines = []
    for module, names in stored_names().items():
        rows: dict[str, list[str]] = {}
        missing = []
        for name in names:
            if meant := here(module, name):
                shown = ", ".join(f"`nn.{each}`" for each in meant)
                rows.setdefault(shown, []).append(name)
            else:
                missing.append(name)
        lines += [f"### {module}", "", f"| `{module}` | here |", "| --- | --- |"]
        lines += [f"| {', '.join(f'`{each}`' for each in group)} | {shown} |" for shown, group in rows.items()]
        if missing:
            lines += [f"| {', '.join(f'`{each}`' for each in missing)} | no counterpart |"]
        lines += [""]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """A page with the table of today."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{table()}\n{END}{after}"


def main() -> None:
    """Write names and table."""
    if importlib.util.find_spec("torch"):
        NAMES.write_text("".join(f"{m} {' '.join(names)}\n" for m, names in torch_names().items()), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
