"""Whether two trees are the same: in every type, every dtype, every bit."""

from __future__ import annotations

import struct
import sys
from typing import Any, get_args

import numpy as np

from quantum_memory.state.document import QuantumState
from quantum_memory.state.emotional_state import EmotionalContext
from quantum_memory.state.memory_state import MemoryState


def assert_identical(a: Any, b: Any, where: str = "it") -> None:
    """Raise `AssertionError`, naming the place, unless `a` and `b` agree in type and in every bit.

    NaN payloads, the sign of zero, byte order and the order of dictionaries count; the memory order of an array does
    not.

    Parameters
    ----------
    a, b
        Trees of everything that a `MemoryState` may hold, or memories.
    where
        What to call the place.
    """
    _expect(type(a), type(b), where)
    match a:
        case MemoryState():
            for part in ("quantum", "classical", "emotion", "metadata"):
                assert_identical(getattr(a, part), getattr(b, part), f"{where}.{part}")
        case _ if isinstance(a, (*get_args(QuantumState), EmotionalContext)):
            assert_identical(_fields(a), _fields(b), where)
        case dict():
            assert_identical(list(a.items()), list(b.items()), where)
        case list() | tuple():
            _expect(len(a), len(b), where)
            for index, (x, y) in enumerate(zip(a, b, strict=True)):
                assert_identical(x, y, f"{where}[{index}]")
        case np.ndarray() | np.generic():
            _expect((a.dtype, a.dtype.str, a.shape), (b.dtype, b.dtype.str, b.shape), where)
            _expect(a.tobytes(), b.tobytes(), where)
        case float():
            _expect(struct.pack(">d", a), struct.pack(">d", b), where)
        case complex():
            assert_identical((a.real, a.imag), (b.real, b.imag), where)
        case _ if "torch" in sys.modules and isinstance(a, sys.modules["torch"].Tensor):
            _expect((a.dtype, a.shape, a.requires_grad), (b.dtype, b.shape, b.requires_grad), where)
            _expect(_tensor_bytes(a), _tensor_bytes(b), where)
        case _:
            _expect(a, b, where)


def _expect(a: object, b: object, where: str) -> None:
    if a != b:
        raise AssertionError(f"{where} differs: {a!r:.200} and {b!r:.200}")


def _fields(state: Any) -> dict[str, Any]:
    names = (
        "amplitudes", "matrix", "tensors", "tableau", "qubit_order", "dims", "labels", "canonical_form",
        "orthogonality_center", "log_scale",
    )  # fmt: skip
    if isinstance(state, EmotionalContext):
        return state.to_tree()
    return {name: getattr(state, name) for name in names if hasattr(state, name)}


def _tensor_bytes(tensor: Any) -> bytes:
    torch = sys.modules["torch"]
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    items: bytes = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return items
