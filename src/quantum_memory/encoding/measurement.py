"""Measuring in the computational basis: outcomes packed to bits, their record, and the correction of readout errors."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from quantum_memory.encoding.noise import NoiseModel, ReadoutError
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.sites import checked_shots, generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from quantum_memory.encoding.entangler import Entangler
    from quantum_memory.state.matrix_product_state import MatrixProductState
    from quantum_memory.state.quantum_state import DensityMatrix, StateVector


def checked_bits(bits: ArrayLike, n_qubits: int | None = None) -> NDArray[np.uint8]:
    """Return outcomes as uint8 of shape (shots, n_qubits), having checked that they are bits.

    Raises
    ------
    InvalidStateError
        If the shape is another, there is no shot, or a value is neither 0 nor 1.
    """
    array = np.asarray(bits)
    if array.ndim != 2 or array.size == 0 or n_qubits not in {None, array.shape[1]}:
        raise InvalidStateError(
            f"outcomes have shape {array.shape}", next_step=f"give (shots, {n_qubits or 'n_qubits'}), at least one shot"
        )
    if array.dtype.kind not in "biu" or not ((array == 0) | (array == 1)).all():
        raise InvalidStateError("outcomes that are not bits", next_step="give integers 0 and 1, column i for qubit i")
    return array.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class MeasurementRecord:
    """The outcomes of a measurement, bit-packed, and the facts around them.

    Parameters
    ----------
    packed
        uint8: the bits of all shots in a row, qubit 0 of shot 0 first, as `numpy.packbits` packs them; the last byte is
        filled up with zeros. 27 qubits take 3.4 bytes per shot.
    n_qubits, shots
        The shape of the outcomes.
    seed
        The seed they were drawn with, if it was a number.
    timestamp
        When, as ISO 8601 text, if anybody said so.
    noise
        The noise that is on them, as far as it is known. The outcomes themselves are always as measured: mitigation is
        applied when they are read.

    Raises
    ------
    InvalidStateError
        If the bytes are not those of `shots` times `n_qubits` bits.
    """

    packed: NDArray[np.uint8]
    n_qubits: int
    shots: int
    seed: int | None = None
    timestamp: str | None = None
    noise: NoiseModel | None = None

    def __post_init__(self) -> None:
        count = self.n_qubits * self.shots
        if (
            self.packed.dtype != np.uint8
            or self.packed.shape != (-(-count // 8),)
            or min(self.n_qubits, self.shots) < 1
        ):
            raise InvalidStateError(
                f"{self.packed.shape} of {self.packed.dtype} is not {self.shots} shots of {self.n_qubits} bits",
                next_step="build records with MeasurementRecord.of or measure",
            )
        if count % 8 and self.packed[-1] & (0xFF >> count % 8):
            raise InvalidStateError("the bits after the last outcome are not zero", next_step="pack the outcomes again")

    @classmethod
    def of(
        cls,
        bits: ArrayLike,
        *,
        seed: int | None = None,
        timestamp: str | None = None,
        noise: NoiseModel | None = None,
    ) -> Self:
        """Return the record of outcomes of shape (shots, n_qubits)."""
        array = checked_bits(bits)
        shots, n_qubits = array.shape
        return cls(np.packbits(array), n_qubits, shots, seed, timestamp, noise)

    @property
    def bits(self) -> NDArray[np.uint8]:
        """The outcomes, shape (shots, n_qubits), column i for qubit i."""
        return np.unpackbits(self.packed, count=self.shots * self.n_qubits).reshape(self.shots, self.n_qubits)

    def counts(self) -> dict[str, int]:
        """Return how often each bitstring came, most frequent first; qubit 0 is the first character."""
        return dict(Counter("".join(map(str, row)) for row in self.bits.tolist()).most_common())

    def to_tree(self) -> dict[str, Any]:
        """Return the record as a dictionary of one NumPy array, numbers, text and None."""
        return {
            "packed": self.packed,
            "n_qubits": self.n_qubits,
            "shots": self.shots,
            "seed": self.seed,
            "timestamp": self.timestamp,
            "noise": None if self.noise is None else self.noise.to_json(),
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """Return the record that `to_tree` gave."""
        try:
            noise = None if tree["noise"] is None else NoiseModel.from_json(tree["noise"])
            return cls(tree["packed"], tree["n_qubits"], tree["shots"], tree["seed"], tree["timestamp"], noise)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidStateError(
                "this is not the tree of a measurement record", next_step="give what to_tree returned"
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MeasurementRecord):
            return NotImplemented
        facts = ("n_qubits", "shots", "seed", "timestamp", "noise")
        return np.array_equal(self.packed, other.packed) and all(getattr(self, f) == getattr(other, f) for f in facts)

    __hash__ = None  # type: ignore[assignment]


def measure(
    state: StateVector | DensityMatrix | MatrixProductState,
    shots: int,
    seed: int | np.integer[Any] | np.random.Generator | None = None,
    *,
    noise: NoiseModel | None = None,
    timestamp: str | None = None,
) -> MeasurementRecord:
    """Measure Z on every qubit of `state`.

    Parameters
    ----------
    state
        What is measured; it stays as it is.
    shots
        How often, at least once.
    seed
        A number, which is recorded, or a generator.
    noise
        Noise on the qubits right before the measurement, and of the readout. It is applied to the outcomes, which is
        exact (see `NoiseModel.outcome_error`).
    timestamp
        What to record as the time.
    """
    if checked_shots(shots, state.dims) < 1:
        raise InvalidStateError(f"{shots} shots", next_step="measure at least once")
    rng = generator(seed)
    bits = state.sample(shots, rng)
    if noise is not None:
        bits = noise.apply_to_bits(bits, rng)
    return MeasurementRecord.of(
        bits, seed=int(seed) if isinstance(seed, (int, np.integer)) else None, timestamp=timestamp, noise=noise
    )


def mitigate(bits: ArrayLike, error: ReadoutError, entangler: Entangler | None = None) -> NDArray[np.float64]:
    """Return unbiased estimates of Z per shot and qubit, as it was before the readout error and before the entangler.

    Outcome s = 1 - 2 bit of a qubit with true value t has mean c t + b, with b = e1 - e0 and c = 1 - e0 - e1, so that
    (s - b)/c is unbiased; flips are independent, so that products of these over a parity set are unbiased for it.
    Single estimates exceed [-1, 1]: take means. The variance grows by about 1/c^2 for each qubit of the set.

    Parameters
    ----------
    bits
        Outcomes, shape (shots, n_qubits).
    error
        The flips; `NoiseModel.outcome_error` includes those of channels.
    entangler
        The entangler to undo; None for none.

    Returns
    -------
    float64 of shape (shots, n_qubits); its mean over the shots estimates <Z> of each qubit.

    Raises
    ------
    InvalidStateError
        If e0 + e1 = 1 for some qubit: then its outcome says nothing.
    """
    array = checked_bits(bits)
    e0, e1 = error.rates(array.shape[1])
    contrast = 1 - e0 - e1
    if (np.abs(contrast) < 1e-9).any():
        raise InvalidStateError(
            f"the outcome of qubit {int(np.abs(contrast).argmin())} says nothing, since e0 + e1 = 1",
            next_step="calibrate the readout error again",
        )
    corrected = (1.0 - 2.0 * array - (e1 - e0)) / contrast
    if entangler is None:
        return corrected
    if entangler.n_qubits != array.shape[1]:
        raise InvalidStateError(
            f"outcomes of {array.shape[1]} qubits, an entangler of {entangler.n_qubits}", next_step="give its outcomes"
        )
    parities = [
        (-1.0) ** constant * corrected[:, list(qubits)].prod(axis=1) for qubits, constant in entangler.parity_sets()
    ]
    return np.stack(parities, axis=1)


class MeasurementCache:
    """The newest measurement records, oldest first.

    Parameters
    ----------
    capacity
        How many are kept; when a further one comes, the oldest goes.
    records
        Those to begin with.
    """

    def __init__(self, capacity: int = 100, records: Iterable[MeasurementRecord] = ()) -> None:
        if capacity < 1:
            raise InvalidStateError(f"a cache of {capacity} records", next_step="keep at least one")
        self._records = deque(records, maxlen=capacity)

    @property
    def capacity(self) -> int:
        """How many records are kept."""
        return self._records.maxlen or 0

    def append(self, record: MeasurementRecord) -> None:
        """Keep `record`, at the cost of the oldest when the cache is full."""
        self._records.append(record)

    def __iter__(self) -> Iterator[MeasurementRecord]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> MeasurementRecord:
        return self._records[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MeasurementCache):
            return NotImplemented
        return self._records == other._records and self.capacity == other.capacity

    __hash__ = None  # type: ignore[assignment]

    def to_tree(self) -> dict[str, Any]:
        """Return the cache as dictionaries, lists, NumPy arrays, numbers, text and None."""
        return {"capacity": self.capacity, "records": [record.to_tree() for record in self]}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """Return the cache that `to_tree` gave."""
        try:
            return cls(tree["capacity"], [MeasurementRecord.from_tree(record) for record in tree["records"]])
        except (KeyError, TypeError) as error:
            raise InvalidStateError(
                "this is not the tree of a measurement cache", next_step="give what to_tree returned"
            ) from error
