"""Counts of the transfers between host and device."""

from dataclasses import dataclass


@dataclass
class TransferCounts:
    """Calls and bytes of the transfers of one backend since it was made."""

    to_device: tuple[int, int] = (0, 0)
    to_host: tuple[int, int] = (0, 0)

    def count(self, direction: str, nbytes: int) -> None:
        """Add one call, ``"to_device"`` or ``"to_host"``."""
        calls, total = getattr(self, direction)
        setattr(self, direction, (calls + 1, total + nbytes))
