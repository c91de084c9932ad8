"""The algorithms of matrix product states, on plain lists of (left bond, physical, right bond) tensors.

Everything here works on the contraction of the list, in the precision of its tensors; what the factors are called and
how they are rounded is the business of `quantum_memory.state.matrix_product_state`. Functions that return nothing
change the list, never the arrays in it.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.sites import BLOCK, checked_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from quantum_memory.state.sites import Array

_SHOTS = 1 << 10  # drawn together: keeps the `bond * dim` branches of each in a few MiB


def checked_chain(tensors: Sequence[ArrayLike]) -> list[Array]:
    """Return tensors as arrays, not copied, after checking that they form a chain with open ends and of one dtype."""
    arrays = [checked_array(tensor, 3, f"tensor {site}") for site, tensor in enumerate(tensors)]
    if not arrays:
        raise InvalidStateError("a matrix product state has at least one site", next_step="pass one tensor per site")
    if dtypes := {array.dtype for array in arrays} - {arrays[0].dtype}:
        raise InvalidStateError(
            f"the tensors have different dtypes: {arrays[0].dtype}, {', '.join(sorted(map(str, dtypes)))}",
            next_step="convert them to one dtype",
        )
    bonds = [arrays[0].shape[0], *(array.shape[2] for array in arrays)]
    for site, array in enumerate(arrays):
        if array.shape[0] != bonds[site] or 0 in array.shape:
            raise InvalidStateError(
                f"tensor {site} has shape {array.shape} after a bond of dimension {bonds[site]}",
                next_step="order the axes (left bond, physical, right bond)",
            )
    if (bonds[0], bonds[-1]) != (1, 1):
        raise InvalidStateError(
            f"the outer bonds have dimensions {bonds[0]} and {bonds[-1]}, not 1",
            next_step="only open boundaries are supported: contract or trace the outer bonds first",
        )
    return arrays


def refuse_non_finite(arrays: Sequence[Array]) -> None:
    """Raise `InvalidStateError` when any entry is infinite or not a number."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise InvalidStateError("the state has entries that are not finite", next_step="see state.problems()")


def orthogonalize(tensors: list[Array], center: int) -> None:
    """Bring the chain into canonical form about `center`, where its norm then lives."""
    log = _carry_to(tensors, center)
    tensors[center] = tensors[center] * exp(log)


def normalize(tensors: list[Array], center: int) -> None:
    """Bring the chain into canonical form about `center`, with norm 1, however large or small its norm was."""
    _carry_to(tensors, center)
    norm = np.linalg.norm(tensors[center])
    if norm == 0:
        raise InvalidStateError("the zero state has no outcomes", next_step="check how the state was made")
    tensors[center] = tensors[center] / norm


def _carry_to(tensors: list[Array], center: int) -> float:
    """Bring the chain into canonical form about `center`, up to a factor, whose logarithm is returned.

    QR decompositions from the left end up to `center`, LQ decompositions from the right end down to it.
    """
    log = 0.0
    for site in range(center):
        left, dim, right = tensors[site].shape
        isometry, rest = np.linalg.qr(tensors[site].reshape(left * dim, right))
        scale = float(np.linalg.norm(rest)) or 1.0
        log += math.log(scale)
        tensors[site] = isometry.reshape(left, dim, -1)
        tensors[site + 1] = np.tensordot(rest / scale, tensors[site + 1], 1)
    for site in range(len(tensors) - 1, center, -1):
        left, dim, right = tensors[site].shape
        isometry, rest = np.linalg.qr(tensors[site].reshape(left, dim * right).conj().T)
        scale = float(np.linalg.norm(rest)) or 1.0
        log += math.log(scale)
        tensors[site] = isometry.conj().T.reshape(-1, dim, right)
        tensors[site - 1] = np.tensordot(tensors[site - 1], rest.conj().T / scale, 1)
    return log


def claimed_isometries(tensors: Sequence[Array], center: int) -> Iterator[tuple[int, str, Array]]:
    """Yield site, side and matrix of each tensor that is an isometry if the chain is canonical about `center`."""
    for site, tensor in enumerate(tensors):
        left, dim, right = tensor.shape
        if site < center:
            yield site, "left", tensor.reshape(left * dim, right)
        elif site > center:
            yield site, "right", tensor.reshape(left, dim * right).T


class Limit(NamedTuple):
    """How much of a bond is kept when a matrix is split in two.

    Singular values within rounding of zero always go: those at most sixteen times ``eps`` (of `dtype` and of the
    precision that is worked in) times the largest. The usual bound on the error of a decomposition, which grows with
    the size of the matrix (`numpy.linalg.matrix_rank`), would take true ones of a large state in single precision.
    """

    dtype: np.dtype[Any]
    """In which the factors will be kept."""
    max_bond: int | None
    """Largest number of singular values to keep; None for no limit."""
    cutoff: float
    """Largest sum of discarded squared singular values, relative to the sum of all."""

    def split(self, matrix: Array, *, center_right: bool = True) -> tuple[Array, Array, float]:
        """Return the best two factors of `matrix`, and the relative weight discarded.

        The singular values go to the right factor if `center_right`, else to the left; the other is an isometry.
        """
        if (self.max_bond is not None and self.max_bond < 1) or not 0 <= self.cutoff < 1:
            raise InvalidStateError(
                f"max_bond {self.max_bond} and cutoff {self.cutoff} leave no state",
                next_step="max_bond is at least 1, cutoff at least 0 and below 1",
            )
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        relative = values.astype(np.float64) / (values[0] or 1.0)
        squares = relative**2
        tails = squares[::-1].cumsum()[::-1] / (squares.sum() or 1.0)  # tails[k]: the weight lost by keeping k values
        rounding = 16 * max(np.finfo(self.dtype).eps, np.finfo(values.dtype).eps)
        significant = int(np.count_nonzero((relative > rounding) & (tails > self.cutoff)))
        keep = max(1, min(significant, len(values) if self.max_bond is None else self.max_bond))
        weight = float(tails[keep]) if keep < len(tails) else 0.0
        left, values, right = left[:, :keep], values[:keep], right[:keep]
        return (left, values[:, None] * right, weight) if center_right else (left * values, right, weight)


def factorize(tensor: Array, limit: Limit) -> list[Array]:
    """Return the left-canonical chain whose contraction is `tensor`, which has one axis per site."""
    chain = []
    rest = tensor.reshape(1, -1)
    for dim in tensor.shape[:-1]:
        left, rest, _ = limit.split(rest.reshape(rest.shape[0] * dim, -1))
        chain.append(left.reshape(-1, dim, left.shape[1]))
    return [*chain, rest.reshape(rest.shape[0], tensor.shape[-1], 1)]


def truncate(tensors: list[Array], limit: Limit) -> tuple[float, ...]:
    """Limit every bond, in canonical form about the site on its left; the chain is left-canonical afterwards.

    Returns
    -------
    tuple of float
        The weight discarded at each bond.
    """
    orthogonalize(tensors, 0)
    weights = []
    for site in range(len(tensors) - 1):
        left, dim, right = tensors[site].shape
        isometry, rest, weight = limit.split(tensors[site].reshape(left * dim, right))
        tensors[site] = isometry.reshape(left, dim, -1)
        tensors[site + 1] = np.tensordot(rest, tensors[site + 1], 1)
        weights.append(weight)
    return tuple(weights)


def apply_to_pair(tensors: list[Array], gate: Array, low: int, high: int, limit: Limit) -> None:
    """Apply a gate to sites `low` < `high`; the chain is canonical about `high` afterwards.

    Site `high` is exchanged with its left neighbours until it is next to `low`, and back after the gate.

    Parameters
    ----------
    tensors
        The chain.
    gate
        Axes: out of `low`, out of `high`, into `low`, into `high`.
    low, high
        The sites.
    limit
        For every bond that changes.
    """

    def pair(site: int) -> Array:
        return np.tensordot(tensors[site], tensors[site + 1], 1)

    def replace(site: int, both: Array, *, center_right: bool) -> None:
        left, dim, other, right = both.shape
        first, second, _ = limit.split(both.reshape(left * dim, other * right), center_right=center_right)
        tensors[site] = first.reshape(left, dim, -1)
        tensors[site + 1] = second.reshape(-1, other, right)

    orthogonalize(tensors, high - 1)
    for site in range(high - 1, low, -1):
        replace(site, pair(site).transpose(0, 2, 1, 3), center_right=False)
    gated = np.tensordot(pair(low), gate, ((1, 2), (2, 3))).transpose(0, 2, 3, 1)
    replace(low, gated, center_right=True)
    for site in range(low + 1, high):
        replace(site, pair(site).transpose(0, 2, 1, 3), center_right=True)


def direct_sum(chains: Sequence[Sequence[Array]], factors: Array) -> list[Array]:
    """Return the chain of ``sum_k factors[k] chains[k]``, with bonds as large as those of all chains together."""
    last = len(chains[0]) - 1
    total = []
    for site, tensors in enumerate(zip(*chains, strict=True)):
        lefts = _slots([tensor.shape[0] for tensor in tensors], shared=site == 0)
        rights = _slots([tensor.shape[2] for tensor in tensors], shared=site == last)
        block = np.zeros((lefts[-1].stop, tensors[0].shape[1], rights[-1].stop), tensors[0].dtype)
        for tensor, factor, left, right in zip(tensors, factors, lefts, rights, strict=True):
            block[left, :, right] += tensor * factor if site == 0 else tensor
        total.append(block)
    return total


def _slots(sizes: Sequence[int], *, shared: bool) -> list[slice]:
    """Return the place of each summand along a bond: one after the other, or all the same at an outer bond."""
    ends = [1] * len(sizes) if shared else list(accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def log_inner(bra: Sequence[Array], ket: Sequence[Array]) -> tuple[complex, float]:
    """Return a mantissa and a logarithm whose ``mantissa * exp(logarithm)`` is ``<bra|ket>``; neither overflows."""
    log = 0.0
    environment: Array = np.ones((1, 1))
    for left, right in zip(bra, ket, strict=True):
        environment = np.tensordot(left.conj(), np.tensordot(environment, right, 1), ((0, 1), (0, 1)))
        scale = float(np.abs(environment).max())
        if scale == 0:
            return 0j, 0.0
        environment, log = environment / scale, log + math.log(scale)
    return complex(environment[0, 0]), log


def reduced(tensors: list[Array], sites: tuple[int, ...]) -> Array:
    """Return the density matrix of `sites`, the first most significant, of the normalised state."""
    ascending = sorted(sites)
    normalize(tensors, ascending[0])
    # Axes: digits of rows and of columns so far, right bond of ket and of bra. Outside of `sites` isometries give 1.
    environment = np.eye(tensors[ascending[0]].shape[0])[None, None]
    for site in range(ascending[0], ascending[-1] + 1):
        tensor = tensors[site]
        ket = np.tensordot(environment, tensor, ((2,), (0,)))  # rows, columns, bond of bra, digit, bond of ket
        if site not in sites:
            environment = np.tensordot(ket, tensor.conj(), ((2, 3), (0, 1)))
            continue
        legs = np.tensordot(ket, tensor.conj(), ((2,), (0,))).transpose(0, 2, 1, 4, 3, 5)
        rows, dim, columns, _, bond, _ = legs.shape
        environment = legs.reshape(rows * dim, columns * dim, bond, bond)
    matrix = environment.trace(axis1=2, axis2=3)
    order = [ascending.index(site) for site in sites]
    legs = matrix.reshape([tensors[site].shape[1] for site in ascending] * 2)
    ordered: Array = legs.transpose([*order, *(len(order) + k for k in order)]).reshape(matrix.shape)
    return ordered


def sample(tensors: list[Array], shots: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw `shots` outcomes of all sites, one row each, from the normalised state.

    In right-canonical form the branches of a site carry their probabilities themselves, given the outcomes on its
    left, so that one pass from left to right draws exactly.
    """
    normalize(tensors, 0)
    outcomes = np.empty((shots, len(tensors)), np.uint8)
    for start in range(0, shots, _SHOTS):
        block = outcomes[start : start + _SHOTS]
        rows = np.arange(len(block))
        vectors: Array = np.ones((len(block), 1))
        for site, tensor in enumerate(tensors):
            left, dim, right = tensor.shape
            branches = (vectors @ tensor.reshape(left, dim * right)).reshape(-1, dim, right)
            weights = (branches.real**2 + branches.imag**2).sum(axis=2)
            upper = weights.cumsum(axis=1)
            draws = rng.random(len(block)) * upper[:, -1]
            digits = (draws[:, None] >= upper[:, :-1]).sum(axis=1)
            vectors = branches[rows, digits] / np.sqrt(weights[rows, digits])[:, None]
            block[:, site] = digits
    return outcomes


def schmidt_values(tensors: list[Array]) -> Iterator[NDArray[np.float64]]:
    """Yield the Schmidt coefficients of the normalised state, bond by bond."""
    normalize(tensors, 0)
    for site in range(len(tensors) - 1):
        _, values, basis = np.linalg.svd(tensors[site].reshape(-1, tensors[site].shape[2]), full_matrices=False)
        yield values
        tensors[site + 1] = np.tensordot(values[:, None] * basis, tensors[site + 1], 1)


def amplitude_blocks(tensors: list[Array], log_scale: float) -> Iterator[Array]:
    """Yield the amplitudes times ``exp(log_scale)``, the digit of the first tensor most significant, block by block.

    A left and a right half are built once, each about the square root of the whole; every block is one product.
    """
    for site, tensor in enumerate(tensors):  # so that no product of many tensors over- or underflows
        scale = float(np.abs(tensor).max()) or 1.0
        tensors[site], log_scale = tensor / scale, log_scale + math.log(scale)
    half = len(tensors) // 2
    left = np.full((1, 1), exp(log_scale))
    for tensor in tensors[:half]:
        left = (left @ tensor.reshape(tensor.shape[0], -1)).reshape(-1, tensor.shape[2])
    right = np.ones((1, 1))
    for tensor in reversed(tensors[half:]):
        right = (tensor.reshape(-1, tensor.shape[2]) @ right).reshape(tensor.shape[0], -1)
    rows = max(1, BLOCK // right.shape[1])
    for start in range(0, len(left), rows):
        yield (left[start : start + rows] @ right).reshape(-1)


def exp(log: float) -> float:
    """Return ``exp(log)``, refusing what a double cannot hold."""
    try:
        return math.exp(log)
    except OverflowError:
        raise InvalidStateError(
            f"exp({log:.6g}) is beyond double precision", next_step="use log_norm() or normalized()"
        ) from None
