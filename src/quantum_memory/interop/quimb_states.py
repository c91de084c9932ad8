"""quimb: kets and operators (`qarray`), matrix product states, and circuits.

The first site is the most significant digit of an index.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, chain, check_made, class_of, dense_or_operator, matrix_of, scaled
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("quimb",)
_CLASSES = ("MatrixProductState", "qarray", "Circuit", "CircuitMPS", "CircuitDense", "TensorNetworkGenVector")


def recognizes(value: object) -> bool:
    """Tell whether this is a `qarray`, a matrix product state, a circuit, or another network that is a state."""
    return class_of(value, "quimb", _CLASSES) is not None


def take(value: Any) -> QuantumState:
    """Return a matrix product state as it is, and anything else as a dense state; see `matrix_of` for operators.

    The tensors of a matrix product state get no other numbers; its `exponent` becomes `log_scale`.

    Raises
    ------
    InvalidStateError
        It is a ring, or has not one tensor for each site, or an array of another shape.
    BudgetError
        A network that is no matrix product state would take more than 16 GiB as a vector.
    """
    found = class_of(value, "quimb", _CLASSES)
    if found in {"Circuit", "CircuitMPS", "CircuitDense"}:
        return take(value.psi)
    if found == "MatrixProductState":
        return _chain(value)
    if found == "TensorNetworkGenVector":
        sites = [value.ind_size(value.site_ind(site)) for site in value.gen_sites_present()]
        needed = np.dtype(value.dtype).itemsize * math.prod(sites)
        check_made(needed, f"the vector of {len(sites)} sites", "give a matrix product state, such as a CircuitMPS has")
        return StateVector(np.asarray(value.to_dense()).reshape(-1), qubit_order="big", dims=sites)
    array = np.asarray(value)
    size = max(array.shape)
    dims = None if size & (size - 1) == 0 and size > 1 else [size]  # of sites it says nothing
    if array.shape == (size, 1):
        return StateVector(array[:, 0], qubit_order="big", dims=dims)
    if array.shape == (size, size):
        return matrix_of(array, "big", dims=dims)
    raise InvalidStateError(f"an array of shape {array.shape} is no ket or density operator of quimb's")


def _chain(value: Any) -> MatrixProductState:
    if value.cyclic:
        raise InvalidStateError("the chain is a ring, and open ends are kept", next_step="contract or cut it open")
    sites = range(value.L)
    by_site = [[one for one in value.tensors if value.site_tag(site) in one.tags] for site in sites]
    if value.num_tensors != value.L or any(
        len(found) != 1 or value.site_ind(site) not in found[0].inds for site, found in zip(sites, by_site, strict=True)
    ):
        raise InvalidStateError(
            f"the chain of {value.L} sites has not one tensor with a physical index for each of them",
            next_step="contract the gates that were applied to it",
        )
    copy = value.copy()
    copy.permute_arrays("lpr")
    tensors = [np.asarray(copy[site].data) for site in sites]  # `arrays` has them in the order of their making
    tensors[0] = tensors[0][None]
    tensors[-1] = tensors[-1][..., None]
    return MatrixProductState(tensors, log_scale=float(value.exponent) * math.log(10))


def give(
    state: QuantumState,
    *,
    mps: bool | None = None,
    max_bond: int | None = None,
    cutoff: float = 0.0,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Return a `quimb.tensor.MatrixProductState`, or a ket or an operator (`qarray`).

    Parameters
    ----------
    mps
        Whether it is a matrix product state; by default it is what it is here.
    max_bond, cutoff
        As for `MatrixProductState.from_dense`, where a state vector becomes a matrix product state.
    max_bytes
        The largest size that a state may be contracted to, if it is to be dense, or on the way from a tableau.
    """
    import quimb  # noqa: PLC0415
    import quimb.tensor as qtn  # noqa: PLC0415

    if mps or (mps is None and isinstance(state, MatrixProductState)):
        found = chain(state, "quimb", max_bond=max_bond, cutoff=cutoff, max_bytes=max_bytes)
        # As the exponent, where it could be more than a tensor holds; else in one, of which all of quimb knows.
        apart = abs(found.log_scale) > math.log(float(np.finfo(found.dtype).max)) / 2
        native = found.dtype.newbyteorder("=")
        tensors = found.tensors if apart else scaled(found)
        arrays = [np.ascontiguousarray(tensor.transpose(0, 2, 1), native) for tensor in tensors]
        if len(arrays) == 1:
            arrays = [arrays[0].reshape(-1)]
        else:
            arrays[0], arrays[-1] = arrays[0][0], arrays[-1][:, 0]
        made = qtn.MatrixProductState(arrays, shape="lrp")
        made.exponent = found.log_scale / math.log(10) if apart else 0.0
        return made
    whole = dense_or_operator(state, "big", "quimb", max_bytes=max_bytes)
    array = whole.amplitudes.reshape(-1, 1) if isinstance(whole, StateVector) else whole.matrix
    return quimb.qarray(array.astype(array.dtype.newbyteorder("="), copy=False))
