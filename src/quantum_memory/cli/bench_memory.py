"""How much memory this process has had at most (Linux)."""

from __future__ import annotations

from pathlib import Path


def reset_peak() -> int:
    """Forget the peak, and return what the process has now, in bytes.

    Raises
    ------
    OSError
        The system does not say.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> int:
    """Return the peak since `reset_peak`, or since the process began; see there."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the system does not say {name}")
