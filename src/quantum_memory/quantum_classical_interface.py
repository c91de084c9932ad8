"""What the holder of an affective memory has in hand: PAD values in qubits, with the classical data around them."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.measurement import MeasurementCache, measure
from quantum_memory.encoding.noise import NoiseModel
from quantum_memory.encoding.pad_encoding import PADEncoding, Reading
from quantum_memory.encoding.trajectory import fubini_study, pad_geodesic
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.verbs import Saved, load, save
from quantum_memory.interface import figures
from quantum_memory.interface.held import Held
from quantum_memory.interface.memory import VERSION, from_memory, to_memory
from quantum_memory.interface.network import load_weights, takes_weights, weights_of
from quantum_memory.lifecycle.repository.folder import now, stamp
from quantum_memory.state import metrics
from quantum_memory.state.document import content_id, flatten, identify
from quantum_memory.state.emotional_state import Emotion, EmotionalContext, Trajectory
from quantum_memory.state.pad import PAD, PADScale
from quantum_memory.state.sites import checked_count, generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import DTypeLike

    from quantum_memory.formats.hdf5_storage import BeforeWrite
    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.matrix_product_state import MatrixProductState
    from quantum_memory.state.memory_state import MemoryState
    from quantum_memory.state.quantum_state import StateVector

    Point = PAD | Sequence[float]

SAVES_KEPT = 100
"""How many saves the interface remembers."""

_NEUTRAL = PAD(0.0, 0.0, 0.0)


class QuantumClassicalInterface:
    """Hold one emotion, or a superposition of several, in a register of qubits, and remember what was measured.

    The state is held as a matrix product state (kilobytes at 27 qubits); `dense` makes the state vector when it is
    asked for.

    Parameters
    ----------
    n_qubits
        How many qubits the three axes share.
    registers
        Qubits for pleasure, arousal and dominance; by default as even as possible, (9, 9, 9) of 27.
    entangler
        "none", "cnot_chain", or an `Entangler`. Decoding undoes it and loses nothing.
    noise
        Noise on sampled readings: local channels before the measurement, and errors of the readout.
    network
        A classical network that is saved with the state: anything with ``state_dict`` and ``load_state_dict``, or a
        tree of arrays. When it can be called, `process` hands it what was read.
    cache_size
        How many measurements are kept.

    Attributes
    ----------
    encoding : PADEncoding
    emotion : EmotionalContext
    cache : MeasurementCache
    network
    metadata : dict
        Whatever the caller wants to be kept with the state.

    Examples
    --------
    >>> interface = QuantumClassicalInterface(n_qubits=27)
    >>> interface.encode([0.76, 0.48, 0.35])
    >>> [round(x, 12) for x in interface.decode().pad]
    [0.76, 0.48, 0.35]
    """

    def __init__(
        self,
        n_qubits: int = 27,
        *,
        registers: Sequence[int] | None = None,
        entangler: Literal["none", "cnot_chain"] | Entangler = "none",
        noise: NoiseModel | None = None,
        network: Any = None,
        cache_size: int = 100,
    ) -> None:
        n_qubits = checked_count(n_qubits, "qubits")
        if isinstance(entangler, str):
            makers = {"none": Entangler.none, "cnot_chain": Entangler.cnot_chain}
            if entangler not in makers:
                raise InvalidStateError(f"there is no entangler {entangler!r}", next_step=f"use one of {list(makers)}")
            entangler = makers[entangler](n_qubits)
        self.encoding = PADEncoding(n_qubits, registers, entangler)
        if noise is not None and not isinstance(noise, NoiseModel):
            raise InvalidStateError(
                f"a {type(noise).__name__} is no noise model", next_step="wrap it in NoiseModel(...)"
            )
        self.noise = noise
        self.network = network
        self.metadata: dict[str, Any] = {}
        self.cache = MeasurementCache(cache_size)
        self.created_at: str | None = stamp(now())
        self.emotion = EmotionalContext(pad=_NEUTRAL)
        self._state: MatrixProductState | None = None
        self._saves: deque[dict[str, Any]] = deque(maxlen=SAVES_KEPT)
        self._terms: list[tuple[complex, PAD]] = [(1.0, _NEUTRAL)]
        self._fidelities: list[float] = []
        self._fidelity_of: tuple[MatrixProductState | None, float] = (None, 0.0)

    @property
    def state(self) -> MatrixProductState:
        """What is held now; at first the neutral point (0, 0, 0)."""
        if self._state is None:
            self._state = self.encoding.encode(_NEUTRAL)
        return self._state

    @property
    def n_qubits(self) -> int:
        """Number of qubits."""
        return self.encoding.n_qubits

    def encode(self, pad: Point, *, scale: PADScale | str = PADScale.BIPOLAR) -> None:
        """Replace what is held by one point.

        Parameters
        ----------
        pad
            Pleasure, arousal and dominance on `scale`.

        Raises
        ------
        InvalidStateError
            A value is out of range or not finite: it is refused, not clipped.
        """
        point = PAD.of(pad, scale)
        self._hold([(1.0, point)], self.encoding.encode(point), point)

    def superpose(self, terms: Iterable[tuple[complex, Point]], *, scale: PADScale | str = PADScale.BIPOLAR) -> None:
        """Replace what is held by a superposition of several points.

        Parameters
        ----------
        terms
            Pairs (weight, point). The codes of different points overlap; the norm is that of their Gram matrix.
        """
        try:
            pairs = [(complex(weight), pad) for weight, pad in terms]
        except (TypeError, ValueError) as error:
            raise InvalidStateError(
                f"these are no terms: {error}", next_step="give pairs (weight, [p, a, d])"
            ) from error
        points = [(weight, PAD.of(pad, scale)) for weight, pad in pairs]
        state = self.encoding.superpose(points)
        self._hold(points, state, self.encoding.decode(state).pad)

    def decode(self, shots: int | None = None, seed: int | None = None, *, mitigate: bool = True) -> Reading:
        """Read the point that is held.

        Parameters
        ----------
        shots
            None: from the state itself, exactly. A number: from that many measurements of all qubits, with the noise of
            the interface on them; they are kept in the cache.
        seed
            Makes the measurements repeatable.
        mitigate
            Correct what the noise model does to outcomes, by the per-qubit inverse of its channels and its readout
            error together. Without it the reading is biased by them, which its standard error does not tell.

        Returns
        -------
        Reading
            ``.pad`` and ``.standard_error`` (zeros when exact).
        """
        exact = self.encoding.decode(self.state)
        if shots is None:
            return exact
        record = measure(self.state, shots, seed, noise=self.noise, timestamp=stamp(now()))
        known = None if self.noise is None or not mitigate else self.noise.outcome_error(self.n_qubits)
        reading = self.encoding.decode_bits(record.bits, readout=known)
        self.cache.append(record)
        fidelity = sum(map(metrics.classical_fidelity, reading.histograms, exact.histograms)) / len(exact.histograms)
        self._fidelities = [*self._fidelities, fidelity][-self.cache.capacity :]
        return reading

    def process(self, reading: Reading | None = None) -> Any:
        """Return what the classical network makes of a reading (by default the exact one).

        The network is called with the three values of the point: a float32 tensor of shape (3,) when it is a torch
        module, a float64 array otherwise.

        Raises
        ------
        InvalidStateError
            There is no network that can be called.
        """
        if not callable(self.network):
            raise InvalidStateError(
                "the interface has no network that can be called", next_step="set interface.network"
            )
        values = np.asarray(reading.pad if reading is not None else self.decode().pad, dtype=np.float64)
        if hasattr(self.network, "parameters"):
            import torch  # noqa: PLC0415 - it is there, since the network is one of its modules

            return self.network(torch.from_numpy(values).to(torch.float32))
        return self.network(values)

    def apply_noise(self, seed: int | None = None) -> None:
        """Let the channels of the noise model act on the held state itself, as one random trajectory."""
        if self.noise is None:
            raise InvalidStateError("the interface has no noise model", next_step="set interface.noise")
        rng = generator(seed)
        state = self.state
        for channel in self.noise.channels:
            for site in range(self.n_qubits):
                state = channel.trajectory(state, site, rng)
        self._state = state

    def dense(
        self, *, qubit_order: QubitOrder = "big", dtype: DTypeLike = np.complex64, max_bytes: int = 1 << 30
    ) -> StateVector:
        """Return the state vector: 1 GiB in complex64 at 27 qubits.

        Raises
        ------
        BudgetError
            It would need more than `max_bytes`; the error says how many.
        """
        return self.state.astype(dtype).to_dense(qubit_order=qubit_order, max_bytes=max_bytes)

    def distances(self, other: Point | QuantumClassicalInterface) -> dict[str, float]:
        """Return how far the held memory is from a point, or from that of another interface.

        Returns
        -------
        dict
            ``pad_distance`` (Euclidean, of the decoded points), ``fidelity`` (``|<a|b>|^2``), ``trace_distance``,
            ``bures_distance`` and ``bures_angle`` of the states.
        """
        if isinstance(other, QuantumClassicalInterface):
            state, pad = other.state, other.decode().pad
        else:
            pad = PAD.of(other)
            state = self.encoding.encode(pad)
        return {
            "pad_distance": self.decode().pad.distance(pad),
            "fidelity": metrics.fidelity(self.state, state),
            "trace_distance": metrics.trace_distance(self.state, state),
            "bures_distance": metrics.bures_distance(self.state, state),
            "bures_angle": metrics.bures_angle(self.state, state),
        }

    def trajectory(
        self, target: Point, steps: int, *, kind: Literal["pad-geodesic", "fubini-study"] = "pad-geodesic"
    ) -> Trajectory:
        """Return the way from the held point to `target`, both included, and keep it in the emotional context.

        Parameters
        ----------
        kind
            "pad-geodesic": straight in PAD space, which with this code is straight in the angles. "fubini-study": along
            the shortest arc between the two *states*, which in its middle is a superposition, decoded to its mean.
        """
        end = PAD.of(target)
        if kind == "pad-geodesic":
            points = pad_geodesic(self.decode().pad, end, steps)
        elif kind == "fubini-study":
            states = fubini_study(self.state, self.encoding.encode(end, dtype=self.state.dtype), steps)
            points = [self.encoding.decode(state).pad for state in states]
        else:
            raise InvalidStateError(f"there is no trajectory {kind!r}", next_step="use pad-geodesic or fubini-study")
        path = Trajectory(np.array([tuple(point) for point in points]))
        scale = self.emotion.scale
        kept = path if scale is PADScale.BIPOLAR else Trajectory(scale.from_bipolar(path.pad))
        self.emotion = dataclasses.replace(self.emotion, trajectory=kept)
        return path

    def get_interface_status(self) -> dict[str, Any]:
        """Return what the interface holds, in plain values."""
        reading = self.decode()
        return {
            "version": VERSION,
            "n_qubits": self.n_qubits,
            "encoding": self.encoding.to_json(),
            "pad": list(reading.pad),
            "terms": len(self._terms),
            "bond_dims": list(self.state.bond_dims),
            "state_bytes": self.state.nbytes,
            "dense_bytes": figures.dense_bytes(self.n_qubits),
            "norm": self.state.norm(),
            "measurements_cached": len(self.cache),
            "cache_capacity": self.cache.capacity,
            "noise": None if self.noise is None else self.noise.to_json(),
            "network": None if self.network is None else type(self.network).__name__,
            "fidelity_metrics": self._fidelity_metrics(),
            "compression_metrics": figures.compression_metrics(self.n_qubits, self.state.nbytes),
            "emotional_stability": self.emotion.stability,
            "created_at": self.created_at,
        }

    def to_memory(self) -> MemoryState:
        """Return everything that the interface holds as a memory: what `save_state` saves."""
        held = Held(
            self.encoding, self._state, self._terms, self.emotion, self.cache, self.noise, self.network, self.metadata,
            self._fidelities, self.created_at,
        )  # fmt: skip
        weights = None if self.network is None else weights_of(self.network)
        return to_memory(held, self.state, weights, self._record())

    def save_state(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = True,
        backup_before_write: BeforeWrite | None = None,
    ) -> Saved:
        """Save everything: the state, its emotional context, the measurements, the network, and the facts about them.

        Parameters
        ----------
        path
            A ``.json`` file of version 2.0, or any other suffix that `quantum_memory.save` knows.
        durable
            See `quantum_memory.save`.
        backup_before_write
            A `BackupManager`, which backs up the file that is replaced; where it cannot, nothing is saved.
        """
        memory = self.to_memory()
        if backup_before_write is not None:
            backup_before_write.before_write(path)
        saved = save(memory, path, durable=durable)
        self._saves.append(
            {
                "saved_at": stamp(now()),
                **figures.save_figures(saved, self.n_qubits),
                "fidelity": self._fidelity_metrics(),
            }
        )
        return saved

    @property
    def save_history(self) -> list[dict[str, Any]]:
        """What the last saves made of the state, up to `SAVES_KEPT`, the newest last.

        Of each the time, the path and format, the bytes of the file, of the arrays in it and of the state vector in
        complex128 (``dense_bytes``); ``ratio`` and ``bits_per_real`` are those of the whole file against that vector,
        and ``fidelity`` is what `get_interface_status` says of it.
        """
        return list(self._saves)

    def save_state_compressed(self, path: str | os.PathLike[str], *, durable: bool = True) -> Saved:
        """Save everything as JSON with zlib; ``state.json`` becomes ``state.json.zlib``."""
        name = os.fspath(path)
        return self.save_state(name if name.endswith(".zlib") else f"{name}.zlib", durable=durable)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Replace everything by what a file holds.

        The file is verified, and everything in it understood, before anything here changes; when that fails, nothing
        does. The file itself is only read.

        A file of the first implementation is migrated in memory. Its tensors are the state; where it has none, the
        point that it measured last is encoded. What has no counterpart here is in
        ``metadata["first_implementation"]``, as a document of the current version, and ``metadata["migration_info"]``
        says from which version it was brought to that. `save_state` saves all of it in the current version; ``qmem
        migrate`` replaces files where they are.

        Raises
        ------
        IntegrityError
            The file is damaged, or is no state of an interface.
        InvalidStateError
            It is the state of an interface with another number of qubits; `from_file` makes one that fits.
        """
        self._take(load(path), path)

    def restore_memory(self, memory: MemoryState) -> None:
        """Replace everything by what `to_memory` returned, of this interface or of another one of as many qubits.

        It raises what `load_state` raises, and nothing has changed then.
        """
        self._take(memory, None)

    def _take(self, memory: MemoryState, path: str | os.PathLike[str] | None) -> None:
        fresh = self._from_memory(memory, path)
        if fresh.n_qubits != self.n_qubits:
            raise InvalidStateError(
                f"it holds {fresh.n_qubits} qubits, this interface {self.n_qubits}",
                path=path,
                next_step="QuantumClassicalInterface.from_file(path) makes an interface that fits",
            )
        if takes_weights(self.network):
            if fresh.network is not None:
                load_weights(self.network, fresh.network, path)
            fresh.network = self.network
        elif fresh.network is None:
            fresh.network = self.network
        self.__dict__.update(fresh.__dict__)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, network: Any = None) -> Self:
        """Return an interface with all that a file holds.

        Parameters
        ----------
        network
            The network that the saved weights belong to; without it they are kept as a tree in ``.network``.
        """
        made = cls._from_memory(load(path), path)
        if network is not None:
            if made.network is not None:
                load_weights(network, made.network, path)
            made.network = network
        return made

    @classmethod
    def _from_memory(cls, memory: MemoryState, path: str | os.PathLike[str] | None) -> Self:
        """Return an interface with what a memory holds; its network is the tree of the weights."""
        held = from_memory(memory, path)
        encoding = held.encoding
        made = cls(
            encoding.n_qubits,
            registers=encoding.registers,
            entangler=encoding.entangler,
            noise=held.noise,
            network=held.network,
        )
        made._state, made._terms, made.emotion = held.state, held.terms, held.emotion
        made.cache, made.metadata, made.created_at = held.cache, held.metadata, held.created_at
        made._fidelities = held.fidelities
        return made

    def _hold(self, terms: list[tuple[complex, PAD]], state: MatrixProductState, pad: PAD) -> None:
        """Take up a new state, and remember the emotion that it stands for."""
        emotion = Emotion(pad.to_scale(self.emotion.scale), timestamp=stamp(now()))
        recent = (*self.emotion.recent_emotions, emotion)[-figures.RECENT :]
        context = dataclasses.replace(
            self.emotion, pad=pad, recent_emotions=recent, stability=figures.stability(recent)
        )
        self._state, self._terms, self.emotion = state, terms, context

    def _fidelity_metrics(self) -> dict[str, Any]:
        """Return the fidelity of the state to what was encoded, and those of the readings to the state."""
        return figures.fidelity_metrics(self._state_fidelity(), self._fidelities)

    def _state_fidelity(self) -> float | None:
        """Return the fidelity of the held state to what was encoded, computed once for each state; None if unknown."""
        if not self._terms:
            return None
        state, fidelity = self._fidelity_of
        if state is not self.state:
            one = len(self._terms) == 1
            ideal = self.encoding.encode(self._terms[0][1]) if one else self.encoding.superpose(self._terms)
            fidelity = metrics.fidelity(self.state, ideal)
            self._fidelity_of = self.state, fidelity
        return fidelity

    def _record(self) -> dict[str, Any]:
        """Return what is noted at a save, and is not part of the content."""
        document, arrays = flatten({"quantum_data": ("quantum", self.state)})
        return {
            "created_at": self.created_at,
            "saved_at": stamp(now()),
            "quantum_state_checksum": content_id(document, identify(arrays)),
            "fidelity_metrics": self._fidelity_metrics(),
            "compression_metrics": figures.compression_metrics(self.n_qubits, self.state.nbytes),
        }
