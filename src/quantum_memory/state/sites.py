"""What every kind of quantum state shares: sites, digits, labels, local operators, tolerances.

Each `checked_*` function returns its argument in the one form that the rest of the room works with, or raises
`InvalidStateError` with a sentence that says what to do instead.
"""

from __future__ import annotations

import math
from operator import index as as_index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state.json_text import is_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array: TypeAlias = NDArray[Any]
    Sites: TypeAlias = int | Sequence[int]
    Digits: TypeAlias = str | Sequence[int]

BLOCK = 1 << 18
"""Amplitudes that are worked on at once, so that extra memory stays at a few MiB whatever the size of the state."""

_NUMBERS = tuple(map(np.dtype, ("float16", "float32", "float64", "complex64", "complex128")))
_TOLERANCES = {2: 1e-2, 4: 1e-6, 8: 1e-10}  # by the bytes of one real number


def double(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the double precision dtype, real or complex, in which numbers are computed from a state of `dtype`."""
    return np.result_type(dtype, np.float64)


def default_tolerance(dtype: np.dtype[Any], dimension: int) -> float:
    """Return how far the norm of a state may be from 1 before somebody should be told.

    ``8 eps sqrt(dimension)``, the growth of rounding errors, but at least 1e-6 in single and 1e-10 in double precision
    (1e-2 in half) and at most a thousand times that, and never above 0.1.
    """
    least = _TOLERANCES[np.finfo(dtype).dtype.itemsize]
    grown = 8 * float(np.finfo(dtype).eps) * math.sqrt(min(dimension, 1 << 100))
    return min(max(least, grown), 1000 * least, 0.1)


def vector_problems(
    bad: int, norm: float, dtype: np.dtype[Any], dimension: int, atol: float | None = None
) -> list[str]:
    """Say what is unphysical about amplitudes of which `bad` are not finite; see `StateVector.problems`."""
    if bad:
        return [f"{bad} of {dimension} amplitudes are not finite"]
    tolerance = default_tolerance(dtype, dimension) if atol is None else atol
    return [f"the norm is {norm:.9g}, not 1"] if abs(norm - 1) > tolerance else []


def shannon_entropy(probabilities: Array, base: float) -> float:
    """Return ``-sum p log p`` in logarithms to `base` over the positive entries of a distribution that sums to 1."""
    if not (base > 0 and base != 1 and math.isfinite(base)):
        raise InvalidStateError(
            f"{base} is no base of a logarithm", next_step="use base=2 (bits) or base=math.e (nats)"
        )
    p = probabilities[probabilities > 0]
    return max(0.0, float(-(p * np.log(p)).sum() / math.log(base)))


def check_budget(needed: int, max_bytes: int, what: str) -> None:
    """Raise `BudgetError` when `what` would take more than `max_bytes`; to be called before anything is allocated."""
    if needed > max_bytes:
        raise BudgetError(
            f"{what} needs {needed} bytes, {max_bytes} are allowed",
            next_step=f"pass max_bytes={needed} if they are there",
        )


def parts(size: int) -> Iterator[slice]:
    """Yield slices that cut `size` items into blocks."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def reversal(dims: Sequence[int]) -> NDArray[np.intp]:
    """Return, for each index, the index with its digits reversed: ``a[reversal(dims)]`` is `a` in the other order."""
    return np.arange(math.prod(dims)).reshape(dims).transpose().reshape(-1)


def reversed_blocks(array: Array, dims: Sequence[int]) -> Iterator[Array]:
    """Yield, block by block, the items of 1-D `array` with the digits of every index, of dimensions `dims`, in reverse.

    An index is (high, low) digits; reversed it is (low reversed, high reversed): the transposition of a matrix.
    """
    half = len(dims) // 2
    high, low = reversal(dims[:half]), reversal(dims[half:])
    matrix = array.reshape(len(high), len(low))
    rows = max(1, BLOCK // len(high))
    for start in range(0, len(low), rows):
        yield matrix[:, low[start : start + rows]][high].T.reshape(-1)


def positions(upper: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the place of each draw in a cumulative sum, never one of weight 0, whatever the rounding."""
    last = np.searchsorted(upper, upper[-1], side="left")
    places: NDArray[np.intp] = np.minimum(np.searchsorted(upper, draws, side="right"), last)
    return places


def checked_array(values: ArrayLike, ndim: int, what: str) -> Array:
    """Return `values` as an array of `ndim` axes and of a dtype that a state may have, never a copy of an array."""
    if isinstance(values, np.ma.MaskedArray):
        raise InvalidStateError(f"{what} cannot be masked", next_step="fill it: array.filled(0)")
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise InvalidStateError(f"{what} is no array: {error}", next_step="check the lengths") from error
    if array.dtype not in _NUMBERS and array.dtype.newbyteorder("=") not in _NUMBERS:
        raise InvalidStateError(
            f"{what} cannot be of dtype {array.dtype}",
            next_step=f"convert explicitly to one of {', '.join(map(str, _NUMBERS))}, say array.astype(np.complex128)",
        )
    if array.ndim != ndim:
        raise InvalidStateError(
            f"{what} must have {ndim} axes, not {array.ndim} (shape {array.shape})", next_step="reshape the array"
        )
    return array


def checked_dims(dims: Sequence[int] | None, dimension: int) -> tuple[int, ...]:
    """Return the dimension of each site; without `dims` the sites are qubits.

    Parameters
    ----------
    dims
        Dimension of each site, site 0 first; their product must be `dimension`.
    dimension
        Dimension of the whole space.
    """
    if dims is None:
        n = dimension.bit_length() - 1
        if dimension < 2 or dimension != 1 << n:
            raise InvalidStateError(
                f"dimension {dimension} is not a power of two, so the sites are not qubits",
                next_step="say what they are, for instance dims=(3, 3) for two qutrits",
            )
        return (2,) * n
    sizes = tuple(checked_count(size, "levels") for size in dims)
    if not sizes or min(sizes) < 1 or math.prod(sizes) != dimension:
        raise InvalidStateError(
            f"dims {sizes} do not multiply to the dimension {dimension}", next_step="give one dimension per site"
        )
    return sizes


def checked_labels(labels: Sequence[str] | None, n_sites: int) -> tuple[str, ...] | None:
    """Return `labels` as a tuple of `n_sites` distinct strings, or None."""
    if labels is None:
        return None
    names = tuple(labels)
    if (
        isinstance(labels, str)
        or not all(type(name) is str and is_unicode(name) for name in names)
        or len(set(names)) != len(names)
        or len(names) != n_sites
    ):
        raise InvalidStateError(
            f"labels must be {n_sites} distinct strings of Unicode, one per site",
            next_step="pass a list of str, or no labels",
        )
    return names


def checked_sites(sites: Sites, n_sites: int) -> tuple[int, ...]:
    """Return one site or several as a tuple of distinct site numbers, in the order given."""
    several = (sites,) if isinstance(sites, (int, np.integer, float, str)) else sites
    numbers = tuple(checked_count(site, "a site") for site in several)
    if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0 or max(numbers) >= n_sites:
        raise InvalidStateError(
            f"sites {numbers} are not distinct sites of this state", next_step=f"sites are numbered 0 to {n_sites - 1}"
        )
    return numbers


def checked_count(value: Any, what: str) -> int:
    """Return `value` as an integer, or say that it is none."""
    try:
        return as_index(value)
    except TypeError:
        raise InvalidStateError(f"{value!r:.80} is no number of {what}", next_step="pass an integer") from None


def generator(seed: Any) -> np.random.Generator:
    """Return a source of random numbers, or say that `seed` makes none."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise InvalidStateError(
            f"{seed!r} is no seed: {error}", next_step="pass None, an integer from 0 on, or a Generator"
        ) from None


def checked_shots(shots: int, dims: Sequence[int]) -> int:
    """Return `shots`, a number of outcomes to draw from sites of dimensions `dims` that fit in uint8."""
    number = checked_count(shots, "shots")
    if number < 0:
        raise InvalidStateError(f"{number} outcomes cannot be drawn", next_step="pass shots=0 or more")
    if max(dims) > 256:
        raise InvalidStateError("outcomes of more than 256 levels do not fit in uint8", next_step="split the site")
    return number


def checked_total(total: float) -> float:
    """Return a norm or trace that can be divided by."""
    if not (math.isfinite(total) and total > 0):
        raise InvalidStateError(f"a norm or trace of {total} cannot be normalised", next_step="see state.problems()")
    return total


def checked_cut(cut: int, n_sites: int) -> int:
    """Return `cut`, the number of sites on the left of a cut into two non-empty parts."""
    number = checked_count(cut, "sites")
    if not 0 < number < n_sites:
        raise InvalidStateError(
            f"cut {number} does not divide {n_sites} sites in two",
            next_step=f"a cut is the number of sites left of it, 1 to {n_sites - 1}",
        )
    return number


def checked_digits(digits: Digits, dims: Sequence[int]) -> tuple[int, ...]:
    """Return one digit per site, each below the entry of `dims` in the same place."""
    if isinstance(digits, str):
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidStateError(f"{digits!r} is not a string of digits", next_step="write for instance '0110'")
        digits = [int(digit) for digit in digits]
    numbers = tuple(checked_count(digit, "a digit") for digit in digits)
    if len(numbers) != len(dims) or any(not 0 <= digit < dim for digit, dim in zip(numbers, dims, strict=True)):
        raise InvalidStateError(
            f"digits {numbers} do not name a basis state of sites with dimensions {tuple(dims)}",
            next_step="give one digit per site, from 0 to its dimension minus 1",
        )
    return numbers


def checked_operator(operator: ArrayLike, dims: Sequence[int]) -> Array:
    """Return `operator`, a matrix on sites of dimensions `dims` (the first most significant), in double precision."""
    if hasattr(operator, "reordered"):  # an Operator, or a density matrix: it says which order it has
        operator = operator.reordered("big")
    matrix = np.asarray(operator)
    dimension = math.prod(dims)
    if matrix.dtype.kind not in "biufc" or matrix.shape != (dimension, dimension):
        raise InvalidStateError(
            f"an operator on sites of dimensions {tuple(dims)} is a {dimension} x {dimension} matrix of numbers, "
            f"not {matrix.dtype} of shape {matrix.shape}",
            next_step="the first site named is the most significant digit of rows and columns",
        )
    return matrix.astype(double(matrix.dtype))


def kept_real(values: Array, dtype: np.dtype[Any], what: str) -> Array:
    """Return `values`, without their imaginary parts if `dtype` is real; these must then be zero."""
    if dtype.kind == "c" or values.dtype.kind != "c":
        return values
    if values.imag.any():
        raise InvalidStateError(
            f"complex {what} would make a {dtype} state complex", next_step='first state.astype("complex128")'
        )
    return values.real
