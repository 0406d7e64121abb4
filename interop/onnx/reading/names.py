"""Names of layers from those in a file."""

from __future__ import annotations

import re
from typing import Any


def name_for(proto: Any) -> str:
    """A name for the layer of an operator, from that of the operator."""
    parts: list[str] = []
    for part in re.sub(rf"/{proto.op_type}(_\d+)?$", "", proto.name).split("/"):
        # PyTorch repeats the name of a container in those within: /layer1/layer1.0/conv1.
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return clean("/".join(parts)) or str(proto.op_type).lower()


def clean(name: str) -> str:
    """A name in parts with dots between them."""
    return ".".join(part for part in re.split(r"[./:]+", name) if part)


def label(proto: Any) -> str:
    """An operator for an error."""
    return f"{proto.op_type} {proto.name}" if proto.name else str(proto.op_type)
