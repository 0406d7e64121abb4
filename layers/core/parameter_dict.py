"""The parameters of a layer by name."""

from __future__ import annotations

from ...common import checks
from .parameter import Parameter


class Parameters(dict[str, Parameter]):
    """A dict in which a parameter can be replaced by one of its shape only, such as that of another layer.

    A layer computes with the sizes that it was made with, and compiled code does not check them again.
    """

    def __setitem__(self, name: str, parameter: Parameter) -> None:
        what = f"parameters[{name!r}]"
        checks.instance(what, parameter, Parameter, "set known values by parameters[name].value = array")
        known = self.get(name)
        if known is not None and parameter.shape != known.shape:
            raise ValueError(
                f"{what} has shape {known.shape}, got a parameter of shape {parameter.shape}; layers can share a "
                "parameter that has the same shape in both"
            )
        super().__setitem__(name, parameter)
