"""Matrix product states with the Schmidt values of every bond, which some simulators keep beside the tensors.

In Vidal's form (G. Vidal, Phys. Rev. Lett. 91, 147902, 2003) the amplitudes are ``G_0 L_0 G_1 L_1 ... G_{n-1}``, where
``L_i`` is the diagonal matrix of the Schmidt values of bond i. ``G_i L_i`` is a right isometry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state import tensor_chain
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.sites import default_tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from quantum_memory.state.sites import Array


def with_schmidt_values(
    state: MatrixProductState, *, max_bond: int | None = None, cutoff: float = 0.0
) -> tuple[list[Array], list[NDArray[np.float64]], float]:
    """Return a state as right isometries in the Schmidt bases, the Schmidt values of each bond, and the norm.

    Parameters
    ----------
    max_bond, cutoff
        As for `MatrixProductState.truncate`. Values within rounding of zero always go.

    Returns
    -------
    tensors
        One array of shape (left bond, physical, right bond) per site, in double precision; of norm 1.
    values
        For each bond the Schmidt values, largest first, of which the squares sum to 1.
    norm
        That of the state, with its `log_scale`.

    Raises
    ------
    InvalidStateError
        It is zero, or not finite.
    """
    short = state.truncate(max_bond, cutoff).state.astype(np.result_type(state.dtype, np.float64))
    tensors, values = list(short.tensors), []
    for site in range(len(tensors) - 1, -1, -1):
        left, dim, right = tensors[site].shape
        basis, found, isometry = np.linalg.svd(tensors[site].reshape(left, dim * right), full_matrices=False)
        tensors[site] = isometry.reshape(-1, dim, right)
        norm = float(np.linalg.norm(found))
        if norm == 0:
            raise InvalidStateError("the zero state has no Schmidt values", next_step="check how the state was made")
        if site:
            tensors[site - 1] = np.tensordot(tensors[site - 1], basis * found, 1)
            values.append(found / norm)
        else:
            tensors[0] = tensors[0] * basis[0, 0]  # a phase
    return tensors, values[::-1], norm * tensor_chain.exp(short.log_scale)


def to_vidal(
    state: MatrixProductState, *, max_bond: int | None = None, cutoff: float = 0.0
) -> tuple[list[Array], list[NDArray[np.float64]]]:
    """Return a state in Vidal's form, its norm in the first tensor; see `with_schmidt_values`.

    Dividing by a Schmidt value makes the rounding of what belongs to it larger by as much: a cutoff takes that away.
    """
    tensors, values, norm = with_schmidt_values(state, max_bond=max_bond, cutoff=cutoff)
    tensors[0] = tensors[0] * norm
    return [*(t / s for t, s in zip(tensors[:-1], values, strict=True)), tensors[-1]], values


def from_vidal(tensors: Sequence[ArrayLike], values: Sequence[ArrayLike]) -> MatrixProductState:
    """Return a state that is given in Vidal's form; canonical only if its tensors are isometries.

    Raises
    ------
    InvalidStateError
        The arrays do not fit together.
    """
    chain = [np.asarray(tensor) for tensor in tensors]
    absorbed = [*(t * np.asarray(s) for t, s in zip(chain[:-1], values, strict=True)), *chain[-1:]]
    made = MatrixProductState(absorbed)
    tolerance = default_tolerance(made.dtype, max(made.bond_dims, default=1) ** 2)
    isometric = all(
        np.abs(matrix.conj().T @ matrix - np.eye(matrix.shape[1])).max() <= tolerance
        for _, _, matrix in tensor_chain.claimed_isometries(list(made.tensors), 0)
    )
    return MatrixProductState(absorbed, canonical_form="right") if isometric else made
