"""torch tensors as arrays. torch is never imported unless a tensor is given, or a file that holds one is read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError, UnsupportedVersionError
from quantum_memory.state.dtypes import SMALL_FLOATS

if TYPE_CHECKING:
    from quantum_memory.state.arrays import AnyArray

Tensor = Any  # torch.Tensor, where torch is there


def is_tensor(value: object) -> bool:
    """Tell whether `value` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def identity(tensor: Tensor) -> object:
    """Return what two tensors share when they are the same memory seen in the same way: they are tied."""
    if not tensor.numel() or tensor.layout is not sys.modules["torch"].strided or tensor.device.type == "meta":
        return id(tensor)
    seen_as = (tuple(tensor.shape), tensor.stride(), str(tensor.dtype), tensor.is_conj(), tensor.is_neg())
    return (str(tensor.device), tensor.data_ptr(), *seen_as)


def to_stored(tensor: Tensor, where: str) -> tuple[AnyArray, dict[str, Any]]:
    """Return the tensor's items as an array of a storable dtype, and what says how to get the tensor back.

    Raises
    ------
    InvalidStateError
        For tensors without dense items (sparse, quantized, nested, meta), of a subclass that means more than its items,
        or of a type that has no storable form.
    """
    torch = sys.modules["torch"]
    name = str(tensor.dtype).removeprefix("torch.")
    if type(tensor) not in {torch.Tensor, torch.nn.Parameter} or tensor.is_nested:
        raise InvalidStateError(
            f"{where} is a {type(tensor).__name__}, which means more than its items",
            next_step="give a plain torch.Tensor of its items, and what else it says beside it",
        )
    if tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        raise InvalidStateError(
            f"{where} is a torch tensor without dense items ({tensor.layout}, {tensor.device}, {tensor.dtype})",
            next_step="give tensor.to_dense() or what it is made of",
        )
    # Views lose what belongs to the tensor and not to its items: conjugation is resolved, gradients are left behind.
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    if name in SMALL_FLOATS:
        plain = plain.view(torch.int16 if SMALL_FLOATS[name] == "u2" else torch.uint8)
    try:
        array: AnyArray = plain.numpy()
    except TypeError as error:
        raise InvalidStateError(
            f"{where} has the torch dtype {name}, which cannot be kept exactly",
            next_step="convert it to one that NumPy has",
        ) from error
    if name in SMALL_FLOATS:
        array = array.view(SMALL_FLOATS[name])
    facts: dict[str, Any] = {"dtype": name}
    if isinstance(tensor, torch.nn.Parameter):
        facts["parameter"] = True
    if tensor.requires_grad:
        facts["requires_grad"] = True
    return array, facts


def from_stored(stored: AnyArray, facts: dict[str, Any]) -> Tensor:
    """Return the tensor that `to_stored` was given, on the CPU and without a gradient."""
    try:
        import torch  # noqa: PLC0415 - only for those who use it
    except ImportError:
        raise UnsupportedVersionError(
            "it holds a torch tensor, and torch is not installed", next_step="pip install 'quantum-memory[torch]'"
        ) from None
    name = facts["dtype"]
    if name in SMALL_FLOATS:
        signed = np.int16 if SMALL_FLOATS[name] == "u2" else np.uint8
        tensor = torch.from_numpy(_writable(stored).view(signed)).view(getattr(torch, name))
    else:
        tensor = torch.from_numpy(_writable(stored))
        if str(tensor.dtype) != f"torch.{name}":
            raise UnsupportedVersionError(f"it holds a torch tensor of type {str(name)[:40]!r}, unknown here")
    if facts.get("parameter"):
        return torch.nn.Parameter(tensor, requires_grad=bool(facts.get("requires_grad")))
    return tensor.requires_grad_() if facts.get("requires_grad") else tensor


def _writable(array: AnyArray) -> AnyArray:
    """Return the array in a form that torch may share: aligned, native and writable."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native if native.flags.writeable and native.flags.c_contiguous else native.copy()
