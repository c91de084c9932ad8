"""What the demo does, step by step; each step returns what it measured, and prints nothing."""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from quantum_memory.cli.output import progress
from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.measurement import measure
from quantum_memory.encoding.pad_encoding import PADEncoding, Reading
from quantum_memory.state.emotional_state import Emotion, EmotionalContext, Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.cli.demo_folder import DemoFolder
    from quantum_memory.cli.demo_path import PADPath
    from quantum_memory.formats.verbs import Saved
    from quantum_memory.state.matrix_product_state import MatrixProductState
    from quantum_memory.state.pad import PAD

N_QUBITS = 27
SHOTS = 1024
DENSE_BYTES = 8 << N_QUBITS
"""Of the state vector of a memory: 2^27 amplitudes of complex64."""

_SEED = 27
_RECENT = 5
_DENSE_MEMORY = 3 * DENSE_BYTES
_DENSE_DISK = 2 * DENSE_BYTES + (64 << 20)  # the file, and the new one that takes its place
_SLICE = 8
_FLIPPED = 1000, 3  # byte and bit: among the tensors of the chain, with which the file begins


@dataclass(frozen=True)
class Kept:
    """One memory of the path, as it was saved."""

    file: str
    label: str
    pad: PAD
    state: MatrixProductState
    content_id: str
    bytes: int
    encode_seconds: float
    save_seconds: float


def remember(path: PADPath, folder: DemoFolder) -> list[Kept]:
    """Encode every point of the path and save it with its emotional context, durably, in a file of its own."""
    encoding = PADEncoding(N_QUBITS, entangler=Entangler.cnot_chain(N_QUBITS))
    kept = []
    with progress("save", len(path), unit="items") as advance:
        for index in range(len(path)):
            pad = path.point(index)
            state, encode_seconds = _timed(encoding.encode, pad)
            memory = qm.MemoryState(state, emotion=_context(path, index), metadata=_metadata(path, index, encoding))
            file = folder.file(f"{index + 1:04}.qms")
            saved, save_seconds = _timed(qm.save, memory, file)
            facts = (saved.content_id, saved.bytes, encode_seconds, save_seconds)
            kept.append(Kept(file, path.labels[index], pad, state, *facts))
            if advance is not None:
                advance(1)
    return kept


def _context(path: PADPath, index: int) -> EmotionalContext:
    so_far = path.values[: index + 1]
    bipolar = Trajectory(path.scale.to_bipolar(so_far))
    return EmotionalContext(
        pad=path.point(index),
        scale=path.scale,
        recent_emotions=tuple(Emotion(tuple(values)) for values in so_far[-_RECENT:].tolist()),
        stability=bipolar.stability(),
        trajectory=Trajectory(so_far),
    )


def _metadata(path: PADPath, index: int, encoding: PADEncoding) -> dict[str, Any]:
    said = {} if path.texts[index] is None else {"text": path.texts[index]}
    return {"label": path.labels[index], "index": index, **said, "encoding": encoding.to_json()}


def verify(kept: list[Kept]) -> int:
    """Verify every file, and return how many have the content that was saved; a damaged one is an error."""
    return sum(qm.verify(one.file).content_id == one.content_id for one in kept)


@dataclass(frozen=True)
class Damage:
    """What became of one flipped bit."""

    file: str
    byte: int
    bit: int
    message: str
    restored_from: str
    content_id: str
    same_content: bool


def damage_and_restore(kept: Kept, folder: DemoFolder) -> Damage:
    """Save a second copy, flip one bit of the first, see it refused, and restore it from the copy."""
    copy = folder.file(f"copy-of-{os.path.basename(kept.file)}")  # noqa: PTH119 - the names are plain text here
    qm.save(qm.load(kept.file), copy)
    byte, bit = _FLIPPED
    flip_bit(kept.file, byte, bit)
    message = _refusal(qm.load, kept.file)
    restored = qm.save(qm.load(copy), kept.file)
    same = restored.content_id == qm.verify(kept.file).content_id == kept.content_id
    return Damage(kept.file, byte, bit, message, copy, restored.content_id, same)


def flip_bit(path: str, byte: int, bit: int) -> None:
    """Flip one bit of a file where it lies, as a failing disk does."""
    with open(path, "r+b") as file:  # noqa: PTH123 - a name as it was typed
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([value ^ (1 << bit)]))


def _refusal(read: Callable[[str], object], file: str) -> str:
    try:
        read(file)
    except qm.IntegrityError as error:
        return error.message
    raise AssertionError("a damaged file was read without an error")


@dataclass(frozen=True)
class ReadBack:
    """One memory, loaded and decoded."""

    pad: PAD
    exact: Reading
    sampled: Reading
    fidelity: float
    same_content: bool
    load_seconds: float
    decode_seconds: float


def read_back(kept: list[Kept]) -> list[ReadBack]:
    """Load every memory, compare it with what was encoded, and decode it: exactly, and from shots."""
    rng = np.random.default_rng(_SEED)
    found = []
    with progress("load and decode", len(kept), unit="items") as advance:
        for one in kept:
            memory, load_seconds = _timed(qm.load, one.file)
            encoding = PADEncoding.from_json(memory.metadata["encoding"])
            exact, decode_seconds = _timed(encoding.decode, memory.quantum)
            sampled = encoding.decode_bits(measure(memory.quantum, SHOTS, rng).bits)
            fidelity = qm.metrics.fidelity(one.state, memory.quantum)
            same = memory.content_id == one.content_id
            found.append(ReadBack(one.pad, exact, sampled, fidelity, same, load_seconds, decode_seconds))
            if advance is not None:
                advance(1)
    return found


@dataclass(frozen=True)
class Dense:
    """The same memory as a state vector."""

    file: str
    bytes: int
    codecs: list[str]
    build_seconds: float
    save_seconds: float
    verify_seconds: float
    byte: int
    message: str
    catch_seconds: float
    restore_seconds: float
    content_id: str
    same_content: bool
    digits: str
    amplitude: complex
    amplitude_error: float
    amplitude_seconds: float
    first_index: int
    amplitudes: list[complex]
    slice_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; a complex number is [real, imaginary]."""
        pairs = {
            "amplitude": [self.amplitude.real, self.amplitude.imag],
            "amplitudes": [[value.real, value.imag] for value in self.amplitudes],
        }
        return {**asdict(self), **pairs}


def no_room_for_dense(folder: DemoFolder) -> str | None:
    """Return why the dense step cannot run here; None when it can."""
    memory, disk = available_memory(), folder.free_bytes()
    if memory is not None and memory < _DENSE_MEMORY:
        return f"it needs about 3 GiB of memory, and {memory / 2**30:.1f} GiB are free"
    if disk < _DENSE_DISK:
        return f"it needs about 2 GiB of disk, and {disk / 2**30:.1f} GiB are free"
    return None


def available_memory() -> int | None:
    """Return how many bytes of memory a process may still take (Linux: MemAvailable and cgroup v2); None: unknown."""
    limits = []
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            facts = dict(line.split(":", 1) for line in file)
        limits.append(int(facts["MemAvailable"].split()[0]) * 1024)
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as most, \
             open("/sys/fs/cgroup/memory.current", encoding="ascii") as now:  # noqa: PTH123  # fmt: skip
            limits.append(int(most.read()) - int(now.read()))
    except (OSError, KeyError, ValueError):
        pass  # not Linux, no limit ("max"), or another layout
    return min(limits, default=None)


def dense(kept: Kept, folder: DemoFolder) -> Dense:
    """Save a memory as its state vector, flip a bit in the middle of its data, and read single amplitudes from disk."""
    thin = kept.state.astype(np.complex64)
    state, build_seconds = _timed(partial(thin.to_dense, qubit_order="big"))
    file = folder.file("dense.qms")
    saved, save_seconds = _timed(_save, state, file, "save 1 GiB")
    with progress("verify 1 GiB", DENSE_BYTES) as advance:
        _, verify_seconds = _timed(partial(qm.verify, progress=advance), file)
    byte = saved.bytes // 2
    flip_bit(file, byte, 0)
    message, catch_seconds = _timed(_refusal, qm.verify, file)
    restored, restore_seconds = _timed(_save, state, file, "restore 1 GiB")
    digits = "".join(map(str, kept.state.sample(1, _SEED)[0]))
    with qm.open(file) as opened:
        amplitude, amplitude_seconds = _timed(opened.amplitude, digits)
        first = state.index(digits) // _SLICE * _SLICE
        some, slice_seconds = _timed(opened.amplitudes.__getitem__, slice(first, first + _SLICE))
        content_id, codecs = opened.info()["content_id"], opened.info()["compression"]["codecs"]
    return Dense(
        file=file,
        bytes=saved.bytes,
        codecs=codecs,
        build_seconds=build_seconds,
        save_seconds=save_seconds,
        verify_seconds=verify_seconds,
        byte=byte,
        message=message,
        catch_seconds=catch_seconds,
        restore_seconds=restore_seconds,
        content_id=content_id,
        same_content=saved.content_id == restored.content_id == content_id,
        digits=digits,
        amplitude=amplitude,
        amplitude_error=abs(amplitude - kept.state.amplitude(digits)),
        amplitude_seconds=amplitude_seconds,
        first_index=first,
        amplitudes=some.tolist(),
        slice_seconds=slice_seconds,
    )


def _save(state: object, file: str, label: str) -> Saved:
    with progress(label, DENSE_BYTES) as advance:
        return qm.save(state, file, compression="none", progress=advance)


def numbers(kept: list[Kept], found: list[ReadBack]) -> dict[str, float]:
    """Return the figures of the demo; times are medians, in milliseconds."""
    errors = np.array([np.subtract(one.exact.pad, one.pad) for one in found])
    sampled = np.array([np.subtract(one.sampled.pad, one.pad) for one in found])
    stored = median(one.bytes for one in kept)
    return {
        "memories": len(kept),
        "bytes_stored_median": stored,
        "bytes_stored_total": sum(one.bytes for one in kept),
        "bytes_dense": DENSE_BYTES,
        "ratio": DENSE_BYTES / stored,
        "identical": sum(one.same_content for one in found),
        "fidelity_min": min(one.fidelity for one in found),
        "encode_ms": 1e3 * median(one.encode_seconds for one in kept),
        "save_ms": 1e3 * median(one.save_seconds for one in kept),
        "load_ms": 1e3 * median(one.load_seconds for one in found),
        "decode_ms": 1e3 * median(one.decode_seconds for one in found),
        "round_trip_error_max": float(np.abs(errors).max()),
        "shots": SHOTS,
        "sampled_rmse": float(np.sqrt(np.mean(sampled**2))),
        "sampled_rmse_expected": 2 / math.pi / math.sqrt(N_QUBITS // 3 * SHOTS),
    }


def _timed(work: Callable[..., Any], *arguments: object) -> tuple[Any, float]:
    start = time.perf_counter()
    done = work(*arguments)
    return done, time.perf_counter() - start
