"""Circuits beside a state: kept as bytes in the words of their own library, and read by it alone.

A circuit becomes a dict of plain values: ``format``, the ``version`` of that, the ``library`` that wrote it, and
``data``. Nothing here looks into the data, and loading a memory does not read them.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.interop.shared import class_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_QASM = re.compile(r"\s*(?://[^\n]*\n\s*|/\*.*?\*/\s*)*OPENQASM\s+(\d+(?:\.\d+)?)\s*;", re.DOTALL)


def dump_circuit(circuit: Any) -> dict[str, Any]:
    """Return a circuit as plain values.

    Parameters
    ----------
    circuit
        A circuit of Qiskit (kept as QPY), Cirq (its JSON), PennyLane (a tape, as OpenQASM 2), Stim (its text) or Qulacs
        (its JSON), or OpenQASM as text.

    Raises
    ------
    InvalidStateError
        It is none of these, or its library cannot write it.
    """
    if isinstance(circuit, str):
        found = _QASM.match(circuit)
        if found is None:
            raise InvalidStateError("the text is not OpenQASM: it does not begin with OPENQASM and a version")
        return {"format": "openqasm", "version": found[1], "library": None, "data": circuit.encode()}
    for (package, names), write in _WRITERS.items():
        if class_of(circuit, package, names):
            try:
                return write(circuit)
            except Exception as error:
                raise InvalidStateError(f"{package} cannot write the circuit: {error!s:.200}") from error
    raise InvalidStateError(
        f"a {type(circuit).__module__}.{type(circuit).__name__} is no circuit that is known here",
        next_step="give a circuit of Qiskit, Cirq, PennyLane, Stim or Qulacs, or OpenQASM as text",
    )


def load_circuit(stored: Mapping[str, Any]) -> Any:
    """Return a circuit as its library reads it; OpenQASM as text.

    The library decides what it does with the data: read only what comes from somebody that you trust.

    Raises
    ------
    MissingError
        The library is not installed, or the format is not known.
    InvalidStateError
        It cannot read the data, which may be of a later release.
    """
    name = stored.get("format")
    if not isinstance(name, str) or name not in _READERS:
        raise MissingError(f"circuits in {name!r:.40} are not read here", next_step="its data are in ['data']")
    try:
        return _READERS[name](bytes(stored["data"]))
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed", next_step="pip install it to read the circuit") from error
    except Exception as error:
        raise InvalidStateError(
            f"it cannot be read: {error!s:.200}", next_step=f"it was written by {stored.get('library')}"
        ) from error


def distribution(package: str) -> str | None:
    """Return the name and the version of an imported package, or None where it says none."""
    said = getattr(sys.modules.get(package), "__version__", None)
    if said is None:
        try:
            said = version(package)
        except PackageNotFoundError:
            return None
    return f"{package} {said}"


def _write_qiskit(circuit: Any) -> dict[str, Any]:
    import io  # noqa: PLC0415

    from qiskit import qpy  # noqa: PLC0415

    sink = io.BytesIO()
    qpy.dump(circuit, sink)
    number = str(qpy.common.QPY_VERSION)
    return {"format": "qpy", "version": number, "library": distribution("qiskit"), "data": sink.getvalue()}


def _read_qiskit(data: bytes) -> Any:
    import io  # noqa: PLC0415

    from qiskit import qpy  # noqa: PLC0415

    return qpy.load(io.BytesIO(data))[0]


def _write_cirq(circuit: Any) -> dict[str, Any]:
    import cirq  # noqa: PLC0415

    library = distribution("cirq")
    return {
        "format": "cirq-json",
        "version": cirq.__version__,
        "library": library,
        "data": cirq.to_json(circuit).encode(),
    }


def _read_cirq(data: bytes) -> Any:
    import cirq  # noqa: PLC0415

    return cirq.read_json(json_text=data.decode())


def _write_pennylane(tape: Any) -> dict[str, Any]:
    import pennylane as qml  # noqa: PLC0415

    text: str = qml.to_openqasm(tape)
    return {"format": "openqasm", "version": "2.0", "library": distribution("pennylane"), "data": text.encode()}


def _write_stim(circuit: Any) -> dict[str, Any]:
    library = distribution("stim")
    return {"format": "stim", "version": "1", "library": library, "data": str(circuit).encode()}


def _read_stim(data: bytes) -> Any:
    import stim  # noqa: PLC0415

    return stim.Circuit(data.decode())


def _write_qulacs(circuit: Any) -> dict[str, Any]:
    library = distribution("qulacs")
    return {"format": "qulacs-json", "version": "1", "library": library, "data": circuit.to_json().encode()}


def _read_qulacs(data: bytes) -> Any:
    import qulacs  # noqa: PLC0415

    return qulacs.circuit.from_json(data.decode())


_WRITERS: dict[tuple[str, tuple[str, ...]], Callable[[Any], dict[str, Any]]] = {
    ("qiskit", ("QuantumCircuit",)): _write_qiskit,
    ("cirq", ("AbstractCircuit",)): _write_cirq,
    ("pennylane", ("QuantumScript",)): _write_pennylane,
    ("stim", ("Circuit",)): _write_stim,
    ("qulacs_core", ("QuantumCircuit",)): _write_qulacs,
}
_READERS: dict[Any, Callable[[bytes], Any]] = {
    "qpy": _read_qiskit,
    "cirq-json": _read_cirq,
    "openqasm": bytes.decode,
    "stim": _read_stim,
    "qulacs-json": _read_qulacs,
}
