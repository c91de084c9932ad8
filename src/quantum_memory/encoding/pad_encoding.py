"""PAD-Ry, version 1: a point of PAD space on the qubits of three registers, and back.

Axis k with value x in [-1, 1] is Ry(theta), theta = pi (1 - x)/2, on every qubit of its register, so that x = +1 is
|0...0>, x = -1 is |1...1> and <Z> = sin(pi x/2); an entangler may follow. What a Z measurement tells about x is in the
Hamming weights of the registers alone, so every decoder here goes through their histograms: of an exact state or of
shots. From S shots on m qubits the standard error is (2/pi)/sqrt(m S) for every x, and no measurement does better
(the Fisher information of Z equals the quantum one). A PAD code is three real numbers; no quantum advantage is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import index as as_index
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.hamming_weights import bit_weights, state_weights
from quantum_memory.encoding.measurement import checked_bits, mitigate
from quantum_memory.errors import InvalidStateError, UnsupportedVersionError
from quantum_memory.state.emotional_state import AXES, PAD
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import checked_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from quantum_memory.encoding.noise import ReadoutError

    Histogram = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """A decoded PAD point.

    Parameters
    ----------
    pad
        The point.
    standard_error
        Per axis, of sampling alone; zeros when it was read from the state itself.
    shots
        How many, or None when it was read from the state itself.
    histograms
        Per axis, the share of each Hamming weight 0..m of its register, before any mitigation. Two modes mean
        ambivalence, be it a superposition or a mixture: Z outcomes do not tell them apart.
    mitigated
        Whether readout errors were corrected.
    """

    pad: PAD
    standard_error: tuple[float, float, float]
    shots: int | None
    histograms: tuple[tuple[float, ...], ...]
    mitigated: bool = False

    @property
    def confidence(self) -> float:
        """1 less the share of [-1, 1] that the widest 95 % interval, of +-1.96 standard errors, covers; at least 0."""
        return max(0.0, 1.0 - 1.96 * max(self.standard_error))


@dataclass(frozen=True, init=False)
class PADEncoding:
    """The code: which qubits stand for which axis, and what entangles them.

    Parameters
    ----------
    n_qubits
        At least 3.
    registers
        Their sizes, for pleasure, arousal and dominance; qubit 0 belongs to the first. By default as even as possible,
        earlier registers taking the rest, since the error goes as 1/sqrt(m).
    entangler
        By default none. It costs no accuracy, except that readout errors weigh more on parities.

    Raises
    ------
    InvalidStateError
        If the sizes do not fit.
    """

    n_qubits: int
    registers: tuple[int, int, int]
    entangler: Entangler

    name: ClassVar[str] = "PAD-Ry"
    version: ClassVar[int] = 1

    def __init__(
        self, n_qubits: int = 27, registers: Sequence[int] | None = None, entangler: Entangler | None = None
    ) -> None:
        n_qubits = checked_count(n_qubits, "qubits")
        sizes = tuple(map(as_index, registers or ((n_qubits + 2 - axis) // 3 for axis in range(3))))
        if len(sizes) != len(AXES) or min(sizes) < 1 or sum(sizes) != n_qubits:
            raise InvalidStateError(
                f"registers {sizes} for {n_qubits} qubits",
                next_step="give three sizes that add up to n_qubits, each >= 1",
            )
        if entangler is not None and entangler.n_qubits != n_qubits:
            raise InvalidStateError(
                f"an entangler of {entangler.n_qubits} qubits for a code of {n_qubits}",
                next_step=f"use Entangler.cnot_chain({n_qubits}), say",
            )
        object.__setattr__(self, "n_qubits", n_qubits)
        object.__setattr__(self, "registers", sizes)
        object.__setattr__(self, "entangler", entangler or Entangler.none(n_qubits))

    @property
    def register_slices(self) -> tuple[slice, ...]:
        """Which qubits each axis has."""
        return tuple(slice(start, stop) for start, stop in pairwise((0, *accumulate(self.registers))))

    def encode(self, pad: PAD | Sequence[float], *, dtype: DTypeLike | None = None) -> MatrixProductState:
        """Return the state of a point; its bond dimension is 1 without an entangler, 2 with a CNOT chain.

        Parameters
        ----------
        pad
            The point, bipolar.
        dtype
            By default float64, or complex128 if the entangler has Rz or CP.

        Raises
        ------
        InvalidStateError
            If the point is out of range, or the dtype is real and the state is not.
        """
        return self.entangler.apply(self._product(PAD.of(pad), self._working_dtype(()))).astype(
            self._result_dtype(dtype, ())
        )

    def superpose(
        self, terms: Iterable[tuple[complex, PAD | Sequence[float]]], *, dtype: DTypeLike | None = None
    ) -> MatrixProductState:
        """Return the normalised superposition of the states of several points.

        Parameters
        ----------
        terms
            Pairs (weight, point). Codes overlap, so that the norm is that of their Gram matrix and the weights are not
            amplitudes of orthogonal states.
        dtype
            As in `encode`; complex128 also if a weight is complex.

        Raises
        ------
        InvalidStateError
            If there are no terms or they cancel.
        """
        weights, points = [], []
        for weight, pad in terms:
            weights.append(complex(weight))
            points.append(PAD.of(pad))
        w = np.array(weights)
        gram = np.array([[self._overlap(x, y) for y in points] for x in points]).reshape(len(w), len(w))
        norm_squared = float((w.conj() @ gram @ w).real)
        if not norm_squared > 1e-14 * float(np.vdot(w, w).real):
            raise InvalidStateError(
                "the terms of the superposition cancel", next_step="change the weights or the points"
            )
        working = self._working_dtype(weights)
        w = w / math.sqrt(norm_squared)
        total = MatrixProductState.superpose(
            (w if working.kind == "c" else w.real).tolist(), [self._product(pad, working) for pad in points]
        )
        # Truncation without limits drops rounding noise only.
        return self.entangler.apply(total.truncate().state).astype(self._result_dtype(dtype, weights))

    def decode(self, state: MatrixProductState | StateVector | DensityMatrix) -> Reading:
        """Read a point from the state itself: exact up to rounding, for pure codes.

        x = 1 - (4/pi) atan2(sqrt p1, sqrt p0), where p1 is the mean weight of the register; each is a sum of
        non-negative terms, so that values near the ends keep all digits (arccos <Z> would lose half of them). Of a
        superposition or a mixture this is the point with the same mean weights. The norm of the state does not matter.
        """
        histograms = self.hamming_histograms(state)
        x = [_position(float(h @ np.arange(h.size)), float(h @ np.arange(h.size)[::-1])) for h in histograms]
        return Reading(PAD(*x), (0.0, 0.0, 0.0), None, _plain(histograms))

    def decode_bits(self, bits: ArrayLike, *, readout: ReadoutError | None = None) -> Reading:
        """Read a point from measured outcomes.

        Parameters
        ----------
        bits
            Outcomes of Z on the entangled state, shape (shots, n_qubits).
        readout
            Errors to correct (see `mitigate`); None leaves the bias that they make.

        Returns
        -------
        x = (2/pi) arcsin z with z the mean of 1 - 2 bit, and its standard error from the spread of the register means
        over the shots by the delta method. It is never said to be less than the (2/pi)/sqrt(m S) of independent qubits:
        a spread that came out smaller is chance, and at the ends, where all outcomes agree, it is zero.

        Raises
        ------
        InvalidStateError
            If these are not outcomes of this code, or there is one shot only and errors are to be corrected.
        """
        array = checked_bits(bits, self.n_qubits)
        shots = len(array)
        if readout is not None and shots == 1:
            raise InvalidStateError("one shot cannot be mitigated", next_step="measure at least twice")
        z = 1.0 - 2.0 * self.entangler.undo_bits(array) if readout is None else mitigate(array, readout, self.entangler)
        x, errors = [], []
        for register in self.register_slices:
            means = z[:, register].mean(axis=1)
            spread = float(means.std(ddof=1)) / math.sqrt(shots) if shots > 1 else 0.0
            mean = min(1.0, max(-1.0, float(means.mean())))
            x.append(_position(1 - mean, 1 + mean))
            errors.append(_standard_error(mean, spread, (register.stop - register.start) * shots))
        pleasure, arousal, dominance = errors
        histograms = _plain(self.hamming_histograms(array))
        return Reading(PAD(*x), (pleasure, arousal, dominance), shots, histograms, readout is not None)

    def hamming_histograms(
        self, source: MatrixProductState | StateVector | DensityMatrix | ArrayLike
    ) -> tuple[Histogram, Histogram, Histogram]:
        """Return for each axis the probabilities of the weights 0..m of its register, before the entangler.

        Parameters
        ----------
        source
            A state, or outcomes of shape (shots, n_qubits).
        """
        if isinstance(source, MatrixProductState | StateVector | DensityMatrix):
            if source.dims != (2,) * self.n_qubits:
                raise InvalidStateError(
                    f"a state of {source.n_sites} sites is no code of {self.n_qubits} qubits",
                    next_step="decode it with the encoding that it was made with",
                )
            weights = state_weights(source, self.register_slices, self.entangler)
        else:
            weights = bit_weights(checked_bits(source, self.n_qubits), self.register_slices, self.entangler)
        if not all(0 < histogram.sum() < math.inf for histogram in weights):
            raise InvalidStateError(
                "the state is zero or not finite, so that nothing can be read from it", next_step="see state.problems()"
            )
        pleasure, arousal, dominance = (histogram / histogram.sum() for histogram in weights)
        return pleasure, arousal, dominance

    def similarity(self, x: PAD | Sequence[float], y: PAD | Sequence[float]) -> float:
        """Return the fidelity of two codes in closed form: the product over the axes of cos^(2m)(pi (x - y)/4)."""
        return self._overlap(PAD.of(x), PAD.of(y)) ** 2

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "name": self.name,
            "version": self.version,
            "n_qubits": self.n_qubits,
            "registers": list(self.registers),
            "entangler": self.entangler.to_json(),
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Self:
        """Return the encoding that `to_json` described.

        Raises
        ------
        UnsupportedVersionError
            If it is of another kind or version.
        """
        if (description.get("name"), description.get("version")) != (cls.name, cls.version):
            raise UnsupportedVersionError(
                f"the encoding is {description.get('name')!r}, version {description.get('version')!r}; "
                f"this release reads {cls.name}, version {cls.version}",
                next_step="read it with a newer release",
            )
        try:
            n_qubits, registers = description["n_qubits"], description["registers"]
            entangler = Entangler.from_json(description["entangler"])
            return cls(n_qubits, registers, entangler)
        except (KeyError, TypeError) as error:
            raise InvalidStateError(
                f"this does not describe an encoding ({error})", next_step="give what to_json returned"
            ) from error

    def _overlap(self, x: PAD, y: PAD) -> float:
        return math.prod(math.cos(math.pi * (a - b) / 4) ** m for a, b, m in zip(x, y, self.registers, strict=True))

    def _product(self, pad: PAD, dtype: np.dtype[Any]) -> MatrixProductState:
        # cos(theta/2) is written as a sine, so that both amplitudes are exact at the ends.
        qubits = [
            np.array([math.sin(math.pi * (1 + x) / 4), math.sin(math.pi * (1 - x) / 4)], dtype=dtype) for x in pad
        ]
        return MatrixProductState.from_product(
            [qubit for qubit, size in zip(qubits, self.registers, strict=True) for _ in range(size)]
        )

    def _working_dtype(self, weights: Sequence[complex]) -> np.dtype[Any]:
        real = self.entangler.is_real and not any(weight.imag for weight in weights)
        return np.dtype(np.float64 if real else np.complex128)

    def _result_dtype(self, asked: DTypeLike | None, weights: Sequence[complex]) -> np.dtype[Any]:
        working = self._working_dtype(weights)
        if asked is None:
            return working
        if working.kind == "c" and np.dtype(asked).kind != "c":
            raise InvalidStateError(
                f"the state is complex and does not fit {np.dtype(asked)}", next_step="ask for complex64 or complex128"
            )
        return np.dtype(asked)


def _position(ones: float, zeros: float) -> float:
    """Return x from unnormalised, non-negative probabilities of 1 and of 0."""
    return 1.0 - 4.0 / math.pi * math.atan2(math.sqrt(ones), math.sqrt(zeros))


def _standard_error(z: float, spread: float, outcomes: int) -> float:
    """Return the standard error of x = (2/pi) arcsin z from that of z, over `outcomes` = m S measured bits.

    The slope is taken no nearer to |z| = 1, where it is infinite, than one standard error.
    """
    independent = 1 / math.sqrt(outcomes)
    if spread == 0.0:
        return 2 / math.pi * independent
    slope = 1 / math.sqrt(1 - min(abs(z), max(0.0, 1 - spread)) ** 2)
    return 2 / math.pi * max(independent, slope * spread)


def _plain(histograms: Iterable[Histogram]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(histogram.tolist()) for histogram in histograms)
