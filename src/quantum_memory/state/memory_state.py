"""What is remembered: a quantum state together with the classical data around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, MissingError, UnsupportedVersionError
from quantum_memory.state import adapters
from quantum_memory.state.document import Flat, QuantumState, content_id, flatten, identify, unflatten_parts
from quantum_memory.state.emotional_state import EmotionalContext
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.metrics import fidelity
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.stabilizer_state import StabilizerState

_PARTS = {
    "quantum_data": "quantum",
    "classical_data": "classical",
    "emotional_context": "emotion",
    "metadata": "metadata",
}
"""Keys of the document, which are also those of the nested-dict form, and where the arrays of each are stored."""

_FORMS = ("state_vector", "density_matrix", "mps_tensors", "stabilizer_tableau", "operator")
"""Keys of quantum data in the nested-dict form, of which there is one."""


class MemoryState(Mapping[str, Any]):
    """One memory: quantum state, classical tree, emotional context and metadata.

    It is also a mapping with the keys ``metadata``, ``quantum_data``, ``classical_data`` and ``emotional_context``, so
    that ``memory["quantum_data"]["state_vector"]`` reads what ``memory.quantum.amplitudes`` is.

    Parameters
    ----------
    quantum
        The quantum state; a bare array is taken as by `as_quantum_state`. None: there is none.
    classical
        A nested dict, list or tuple of None, bool, int of any size, float, complex, str, bytes, NumPy arrays and
        scalars, torch tensors and quantum states.
    emotion
        The emotional context; a dict is taken as by `EmotionalContext.from_dict`.
    metadata
        What the caller wants to say about the memory. It is part of the content.
    record
        What was noted when it was saved: norm, time, writer, figures. It is *not* part of the content: it counts
        neither for equality nor for `content_id`.

    Raises
    ------
    InvalidStateError
        When a part is not what it should be.
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("classical", "emotion", "metadata", "quantum", "record")

    def __init__(
        self,
        quantum: QuantumState | np.ndarray[Any, Any] | None = None,
        classical: Any = None,
        emotion: EmotionalContext | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.quantum = None if quantum is None else as_quantum_state(quantum)
        self.classical = classical
        self.emotion = _as_emotion(emotion)
        self.metadata = _as_dict(metadata, "metadata")
        self.record = _as_dict(record, "the record")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MemoryState:
        """Make a memory from its nested-dict form.

        Parameters
        ----------
        data
            Any of the keys ``metadata``, ``quantum_data`` (``{"state_vector": array}``, ``{"density_matrix": array}``,
            ``{"mps_tensors": [array, ...]}``, ``{"stabilizer_tableau": array}`` or ``{"operator": array}``, with
            ``qubit_order``, ``dims`` and ``labels`` as needed),
            ``classical_data`` and ``emotional_context``.

        Raises
        ------
        InvalidStateError
            A key that is none of these: it would be lost.
        """
        if unknown := [key for key in data if key not in _PARTS]:
            raise InvalidStateError(
                f"a state in dict form has no part {unknown[0]!r}",
                next_step=f"use {', '.join(_PARTS)}, or pass the dict as MemoryState(classical=...)",
            )
        quantum = data.get("quantum_data")
        return cls(
            quantum=_quantum_from_dict(quantum) if isinstance(quantum, Mapping) else quantum,
            classical=data.get("classical_data"),
            emotion=data.get("emotional_context") or None,
            metadata=data.get("metadata"),
        )

    @classmethod
    def of(cls, value: object, framework: str | None = None) -> MemoryState:
        """Return a state of another library as a memory.

        Parameters
        ----------
        value
            What the library has returned; see `as_memory_state`.
        framework
            The name of an adapter, for what does not say where it comes from: a plain array of PennyLane's.

        Raises
        ------
        InvalidStateError
            It is no state, or says something that cannot be kept.
        MissingError
            There is no such adapter.
        """
        return as_memory_state(value if framework is None else adapters.adapter(framework).take(value))

    def to(self, framework: str, **options: Any) -> Any:
        """Return the quantum state as what another library takes, in its qubit order.

        Parameters
        ----------
        framework
            The name of an adapter: "qiskit", "cirq", "pennylane", "qutip", "quimb", "tenpy", "qulacs", "aer", "stim",
            "torch", "jax", or one that others have installed.
        options
            Those of the adapter's `give`.

        Raises
        ------
        InvalidStateError
            There is no quantum state, or the library has no such states; its qubit order is unstated.
        MissingError
            There is no such adapter, or the library is not installed.
        BudgetError
            A matrix product state would take too much as a dense one.
        """
        if self.quantum is None:
            raise InvalidStateError("the memory has no quantum state", next_step="its other parts are plain values")
        return adapters.given(self.quantum, framework, **options)

    def fidelity(self, other: object, *, squared: bool = True, executor: Any = None) -> float:
        """Return the fidelity of the quantum state with that of another memory, or with another state.

        See `metrics.fidelity`. Of two state vectors that were loaded from an address no amplitudes are gathered.

        Parameters
        ----------
        other
            A `MemoryState`, or what `as_memory_state` takes.
        squared
            With False, the root fidelity.
        executor
            A `concurrent.futures.Executor`, or a client of Dask, which does the work for two state vectors.

        Raises
        ------
        InvalidStateError
            One of them has no quantum state, or they cannot be compared.
        """
        first, second = self.quantum, as_memory_state(other).quantum
        if first is None or second is None or isinstance(first, Operator) or isinstance(second, Operator):
            raise InvalidStateError("one of them holds no quantum state", next_step="compare memories that hold one")
        return fidelity(first, second, squared=squared, executor=executor)

    def to_dict(self) -> dict[str, Any]:
        """Return the nested-dict form; parts that there are not are left out."""
        parts: dict[str, Any] = {"metadata": self.metadata} if self.metadata else {}
        if self.quantum is not None:
            parts["quantum_data"] = _quantum_to_dict(self.quantum)
        if self.classical is not None:
            parts["classical_data"] = self.classical
        if self.emotion is not None:
            parts["emotional_context"] = self.emotion.to_dict()
        return parts

    @property
    def content_id(self) -> str:
        """Name of the content, 64 hexadecimal digits: the same in every format (see `document.content_id`)."""
        document, arrays = self.flatten()
        return content_id(document, identify(arrays))

    def flatten(self) -> Flat:
        """Return the document and the arrays that every format stores."""
        values = {
            "quantum_data": self.quantum,
            "classical_data": self.classical,
            "emotional_context": None if self.emotion is None else self.emotion.to_tree(),
            "metadata": self.metadata or None,
        }
        return flatten({key: (_PARTS[key], value) for key, value in values.items() if value is not None})

    @classmethod
    def unflatten(
        cls, document: Mapping[str, Any], arrays: Mapping[str, Any], record: Mapping[str, Any] | None = None
    ) -> MemoryState:
        """Put a memory together again from its document and its arrays."""
        if unknown := sorted(set(document) - set(_PARTS)):
            raise UnsupportedVersionError(
                f"its document has a part {unknown[0][:40]!r}, which this release does not know",
                next_step="read it with a newer release of quantum-memory",
            )
        values = dict.fromkeys(_PARTS) | unflatten_parts(document, arrays)
        quantum, emotion, metadata = values["quantum_data"], values["emotional_context"], values["metadata"]
        if not isinstance(quantum, QuantumState | None) or not isinstance(metadata, dict | None):
            raise IntegrityError(
                "its quantum part is no quantum state, or its metadata are no dict",
                next_step=RESTORE,
            )
        return cls(
            quantum=quantum,
            classical=values["classical_data"],
            emotion=None if emotion is None else EmotionalContext.from_tree(emotion),
            metadata=metadata,
            record=record,
        )

    def __eq__(self, other: object) -> bool:
        """Tell whether the contents agree in every bit; what `as_memory_state` takes is taken as there, but arrays."""
        if not isinstance(other, MemoryState):
            if not isinstance(other, (Mapping, QuantumState)):
                return NotImplemented
            try:
                other = as_memory_state(other)
                return self.content_id == other.content_id
            except InvalidStateError:
                return False
        return self.content_id == other.content_id

    def __getitem__(self, key: str) -> Any:
        parts = self.to_dict()
        if key not in parts:
            raise MissingError(f"the memory has no part {key!r}", next_step=f"it has: {', '.join(parts) or 'none'}")
        return parts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        parts = [
            f"{name}={type(getattr(self, name)).__name__}"
            for name in ("classical", "emotion")
            if getattr(self, name) is not None
        ]
        return f"MemoryState({', '.join([repr(self.quantum), *parts, f'metadata={self.metadata!r:.80}'])})"


def as_memory_state(value: object) -> MemoryState:
    """Return `value` as a memory.

    Parameters
    ----------
    value
        A `MemoryState`, a quantum state, an array (see `as_quantum_state`), a state of another library for which there
        is an adapter, an array of any other that has DLPack, or a dict: in the nested-dict form when it has one of its
        keys, otherwise a classical tree.
    """
    if isinstance(value, MemoryState):
        return value
    if isinstance(value, Mapping):
        if not value or not {"quantum", "classical", "emotion"}.isdisjoint(value):
            raise InvalidStateError(
                f"a dict with the keys {list(value)} is not a state",
                next_step=f"use {', '.join(_PARTS)}, or pass a tree as MemoryState(classical=...)",
            )
        nested = any(key in _PARTS for key in value)
        return MemoryState.from_dict(value) if nested else MemoryState(classical=value)
    if isinstance(value, QuantumState) or type(value) is np.ndarray:
        return MemoryState(as_quantum_state(value))
    if (adapter := adapters.adapter_of(value)) is not None:
        return as_memory_state(adapter.take(value))
    if isinstance(value, np.ndarray):
        return MemoryState(as_quantum_state(value))
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return MemoryState(as_quantum_state(_from_dlpack(value)))
    raise InvalidStateError(
        f"a {type(value).__name__} is not a state",
        next_step="give a StateVector, DensityMatrix, MatrixProductState, StabilizerState, Operator, MemoryState, "
        "array, dict, or a state of: " + ", ".join(adapters.names()),
    )


def _from_dlpack(value: Any) -> np.ndarray[Any, Any]:
    """Return an array of a library that nobody has made an adapter for; it is not copied."""
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # of another device, or what NumPy has not
        raise InvalidStateError(
            f"NumPy does not take the {type(value).__name__}: {error!s:.200}",
            next_step="copy it to the memory of the host: CuPy's array.get()",
        ) from error


def as_quantum_state(value: object) -> QuantumState:
    """Return `value` as a quantum state.

    Parameters
    ----------
    value
        A quantum state, or an array: one axis is a state vector, two equal ones are a density matrix. An array does not
        say which qubit is the most significant, so its qubit order is "unstated"; wrap it in `StateVector` to state it.
    """
    if isinstance(value, QuantumState):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 1:
        size = value.size
        return StateVector(value, qubit_order="unstated", dims=None if _is_power_of_two(size) else (size,))
    if isinstance(value, np.ndarray) and value.ndim == 2:
        size = value.shape[0]
        return DensityMatrix(value, qubit_order="unstated", dims=None if _is_power_of_two(size) else (size,))
    what = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    raise InvalidStateError(
        f"{what} is not a quantum state",
        next_step="pass it in the classical part: MemoryState(classical={'name': array})",
    )


def _as_dict(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidStateError(f"{what} is a {type(value).__name__}, not a dict", next_step="give a dict")
    return dict(value)


def _as_emotion(value: object) -> EmotionalContext | None:
    if value is None or isinstance(value, EmotionalContext):
        return value
    if not isinstance(value, Mapping):
        raise InvalidStateError(
            f"an emotional context cannot be a {type(value).__name__}", next_step="give an EmotionalContext or a dict"
        )
    try:
        return EmotionalContext.from_dict(value)
    except (AttributeError, TypeError) as error:
        raise InvalidStateError(
            f"the emotional context is not what EmotionalContext.from_dict reads: {error}",
            next_step="see its docstring for the keys",
        ) from error


def _is_power_of_two(size: int) -> bool:
    return size >= 2 and size & (size - 1) == 0


def _quantum_from_dict(data: Mapping[str, Any]) -> QuantumState | None:
    if not data:
        return None
    forms = [key for key in _FORMS if key in data]
    others = {key: value for key, value in data.items() if key not in forms}
    fields = {"qubit_order", "dims", "labels"}
    if forms == ["mps_tensors"]:
        fields = {"labels", "canonical_form", "orthogonality_center", "log_scale"}
    if forms == ["stabilizer_tableau"]:
        fields = {"labels"}
    if len(forms) != 1 or not fields.issuperset(others):
        raise InvalidStateError(
            f"quantum_data has the keys {sorted(map(str, data))}",
            next_step="give one of " + ", ".join(_FORMS) + ", and of " + ", ".join(sorted(fields)),
        )
    value = data[forms[0]]
    if isinstance(value, QuantumState):
        return value
    if forms == ["mps_tensors"]:
        return MatrixProductState(value, **others)
    if forms == ["stabilizer_tableau"]:
        return StabilizerState(value, **others)
    array = np.asarray(value)
    if not {"qubit_order", "dims"} & set(others):
        others |= {"qubit_order": "unstated", "dims": as_quantum_state(array).dims}
    kind: Any = {"state_vector": StateVector, "density_matrix": DensityMatrix, "operator": Operator}[forms[0]]
    made: QuantumState = kind(array, **{"qubit_order": "unstated", **others})
    return made


def _quantum_to_dict(state: QuantumState) -> dict[str, Any]:
    common: dict[str, Any] = {} if state.labels is None else {"labels": state.labels}
    if isinstance(state, MatrixProductState):
        facts = {name: getattr(state, name) for name in ("canonical_form", "orthogonality_center")}
        facts = {name: fact for name, fact in facts.items() if fact is not None}
        scale = {"log_scale": state.log_scale} if state.log_scale else {}
        return {"mps_tensors": list(state.tensors), **facts, **scale, **common}
    if isinstance(state, StabilizerState):
        return {"stabilizer_tableau": state.tableau, **common}
    common |= {"qubit_order": state.qubit_order, "dims": state.dims}
    if isinstance(state, StateVector):
        return {"state_vector": state.amplitudes, **common}
    return {"operator" if isinstance(state, Operator) else "density_matrix": state.matrix, **common}
