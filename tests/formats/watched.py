"""Hostile files of the formats that are read in one piece: opened with a bound on memory and time, and watched."""

import hashlib
import sys
import time
import tracemalloc

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.formats.reader import read_memory
from quantum_memory.formats.registry import OpenOptions, format_named

SECONDS = 2.0
MIB = 1 << 20
NAME = "hostile file"
FORBIDDEN = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "marshal.")
_seen: list[str] = []
_watching: list[bool] = []


def _watch(event: str, arguments: tuple) -> None:
    if _watching and event.startswith(FORBIDDEN):
        _seen.append(f"{event} {arguments!r:.100}")


sys.addaudithook(_watch)


def sealed(body: bytes) -> bytes:
    """Return bytes with the SHA-256 that makes them whole: what an attacker can do as well."""
    return body + hashlib.sha256(body).digest()


def read(suffix: str, data: bytes, **options: object):
    options = {"allow_pickle": True, **options}
    return read_memory(format_named(suffix).handler.open(ReadableBytes(data, NAME), OpenOptions(**options)))


def refusal(suffix: str, data: bytes, **options: object) -> QuantumMemoryError:
    """Return the error that reading gives; fail where there is none, or where it is not cheap and harmless."""
    format_named(suffix).handler  # noqa: B018 - what it imports is imported before
    error, seconds = _attempt(suffix, data, options)
    tracemalloc.start()  # in a second attempt, since it slows things down
    try:
        _attempt(suffix, data, options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error is not None, "it was read"
    assert error.path == NAME
    assert error.next_step
    assert peak < len(data) + 64 * MIB, f"it took {peak} bytes"
    assert seconds < SECONDS
    assert not _seen
    return error


def _attempt(suffix: str, data: bytes, options: dict) -> tuple[QuantumMemoryError | None, float]:
    _seen.clear()
    start = time.process_time()
    _watching.append(True)
    try:
        read(suffix, data, **options)
    except QuantumMemoryError as refused:
        return refused, time.process_time() - start
    finally:
        _watching.clear()
    return None, 0.0
