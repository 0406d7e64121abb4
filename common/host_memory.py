"""The memory that this process uses and may use, as far as the system reports it."""

import os
import sys
from pathlib import Path

PROC = Path("/proc")


def host_memory() -> dict[str, int]:
    """Resident memory of this process in bytes, now and at its peak; zeros if the system does not report it."""
    try:
        import resource
    except ImportError:
        return {"in_use": 0, "peak": 0, "pool": 0}
    # `reset_host_peak` resets VmHWM only, not ru_maxrss.
    peak = _kilobytes("self/status", "VmHWM")
    if not peak:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        in_use = int((PROC / "self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        in_use = peak
    return {"in_use": in_use, "peak": max(peak, in_use), "pool": 0}


def reset_host_peak() -> bool:
    """Reset the peak of resident memory; False if the system does not support or permit it."""
    try:
        (PROC / "self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def host_capacity() -> tuple[int, int]:
    """Total and used memory in bytes: of the machine, or of this process's address space if that is limited to less."""
    total = _kilobytes("meminfo", "MemTotal")
    used = total - _kilobytes("meminfo", "MemAvailable")
    limit = _address_limit()
    if 0 < limit < total:
        return limit, _kilobytes("self/status", "VmSize")
    return (total, used) if total else (_physical(), 0)


def _address_limit() -> int:
    """The limit of this process's address space in bytes; 0 without a limit."""
    try:
        import resource
    except ImportError:
        return 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def _kilobytes(file: str, name: str) -> int:
    """A value of a file of /proc that lists it in kB, converted to bytes; 0 if it is not listed."""
    try:
        lines = (PROC / file).read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
