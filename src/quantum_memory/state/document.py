"""A memory as one JSON document plus named arrays, and back: the form that every format stores.

``flatten`` takes a tree of plain values, arrays and quantum states apart; ``unflatten`` puts it together again, bit for
bit. What JSON cannot say is said by an object with one key that begins with ``$``; ``docs/qms_format.md`` lists them.
Two places that hold the same tensor refer to the same path, so that tied tensors stay tied.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, UnsafeError, UnsupportedVersionError
from quantum_memory.state import adapters, dtypes, tensors
from quantum_memory.state.arrays import HIDDEN, array_digest, dtype_name, is_elsewhere
from quantum_memory.state.json_text import is_unicode, to_json
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sharded_state import ShardedStateVector
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantum_memory.state.arrays import AnyArray, Windows

QuantumState = StateVector | DensityMatrix | MatrixProductState | StabilizerState | Operator
"""What the quantum part of a memory may be."""

Json = Any

MAX_DEPTH = 128
"""Levels of nesting that a tree may have, when it is written as when it is read."""

MAX_DIMENSIONS = 32
"""Axes that an array may have, in every format."""

_LONG_BYTES = 4096
_LONG_NAME = 200
_EXACT_INT = 1 << 53


class Flat(NamedTuple):
    """A memory taken apart."""

    document: dict[str, Json]
    arrays: dict[str, AnyArray]


class ArrayIdentity(NamedTuple):
    """What identifies an array wherever it is stored."""

    dtype: str
    shape: tuple[int, ...]
    digest: bytes


def flatten(parts: Mapping[str, tuple[str, Any]]) -> Flat:
    """Take trees apart.

    Parameters
    ----------
    parts
        For each key of the document, the first component of its arrays' paths and the tree.

    Raises
    ------
    InvalidStateError
        A value that cannot be kept exactly, named by its path.
    """
    taker = _Flattener()
    try:
        document = {key: taker.node(tree, (prefix,)) for key, (prefix, tree) in parts.items()}
    except RecursionError:
        raise InvalidStateError(
            "the tree is nested more deeply than Python's stack has room for",
            next_step="call from a function that is less deep, or raise sys.setrecursionlimit",
        ) from None
    return Flat(document, taker.arrays)


def unflatten(node: Json, arrays: Mapping[str, AnyArray]) -> Any:
    """Put a tree together again from its node of the document and the arrays that it names.

    Raises
    ------
    IntegrityError
        A node that `flatten` would not have written.
    UnsupportedVersionError
        A kind of node that this release does not know.
    """
    return unflatten_parts({"": node}, arrays)[""]


def unflatten_parts(nodes: Mapping[str, Json], arrays: Mapping[str, AnyArray]) -> dict[str, Any]:
    """Put trees together again as `unflatten` does; what is tied across them is one object in all."""
    with well_formed():
        builder = _Builder(arrays)
        return {key: builder.value(node, 0) for key, node in nodes.items()}


@contextlib.contextmanager
def well_formed(path: str | None = None) -> Iterator[None]:
    """Read a part of a document that anybody may have written: whatever goes wrong is an `IntegrityError`.

    Parameters
    ----------
    path
        The file, which the error names.
    """
    try:
        yield
    except (IntegrityError, UnsupportedVersionError, UnsafeError) as error:
        error.next_step = error.next_step or RESTORE
        if path is not None:
            error.at(path)
        raise
    except (
        ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, SyntaxError, TypeError, ValueError,
        SystemError, struct.error,
    ) as error:  # fmt: skip
        said = str(getattr(error, "message", error)) or type(error).__name__
        raise IntegrityError(f"its document is not well formed: {said:.200}", path=path, next_step=RESTORE) from error


def array_paths(node: Json) -> set[str]:
    """Return the paths of all arrays that a document refers to."""
    found: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            if isinstance(path := top.get("$array"), str):
                found.add(path)
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
    return found


def identify(arrays: Mapping[str, AnyArray | Windows]) -> dict[str, ArrayIdentity]:
    """Return the identity of each array, hashing on all cores."""
    return {
        path: ArrayIdentity(dtype_name(array.dtype) or "", array.shape, array_digest(array))
        for path, array in arrays.items()
    }


def content_id(document: Json, arrays: Mapping[str, ArrayIdentity]) -> str:
    """Return the name of the content: the same for the same state in every format.

    SHA-256, as 64 hexadecimal digits, of the canonical JSON text (sorted keys, no spaces, ASCII) of
    ``{"arrays": {path: [dtype, shape, digest]}, "document": document}``, with the pairs of every ``$dict`` in the order
    of the canonical text of their keys.
    """
    listed = {path: [item.dtype, list(item.shape), item.digest.hex()] for path, item in arrays.items()}
    text = to_json({"arrays": listed, "document": document}, canonical=True)
    if b'"$dict":' in text:
        text = _with_sorted_pairs(text)
    return hashlib.sha256(text).hexdigest()


def _with_sorted_pairs(text: bytes) -> bytes:
    tree = json.loads(text)
    stack = [tree]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            top.get("$dict", []).sort(key=_text_of_key)
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
    return to_json(tree, canonical=True)


def _text_of_key(pair: list[Json]) -> bytes:
    return to_json(pair[0], canonical=True)


class _Flattener:
    def __init__(self) -> None:
        self.arrays: dict[str, AnyArray] = {}
        self._known: dict[object, tuple[str, object]] = {}  # identity -> path, and the object, kept alive

    def node(self, value: Any, path: tuple[str, ...]) -> Json:
        """Return the node of `value`; its arrays go under `path`."""
        if len(path) > MAX_DEPTH:
            raise InvalidStateError(f"the tree is nested deeper than {MAX_DEPTH} levels at {'/'.join(path[:4])}/...")
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return _text(value)
        if kind is int:
            return value if -_EXACT_INT < value < _EXACT_INT else {"$int": format(value, "x")}
        if kind is float:
            return _float(value)
        if kind is list:
            return [self.node(item, (*path, str(index))) for index, item in enumerate(value)]
        if kind is dict:
            return self._dict(value, path)
        if kind is tuple:
            return {"$tuple": [self.node(item, (*path, str(index))) for index, item in enumerate(value)]}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, np.generic):
            return {"$scalar": _scalar(value, "/".join(path))}
        if kind is complex:
            return {"$complex": [_float(value.real), _float(value.imag)]}
        if kind is bytes:
            return {"$bytes": self._bytes(value, path)}
        if kind is OrderedDict and not vars(value):
            return {"$ordered": self._pairs(value, path, by_key=False)}
        if kind is OrderedDict and set(vars(value)) == {"_metadata"}:  # what Module.state_dict() returns
            items = self._pairs(value, path, by_key=False)
            return {"$state_dict": {"items": items, "metadata": self.node(value._metadata, (*path, "metadata"))}}
        if kind in get_args(QuantumState) or kind is ShardedStateVector:
            return {"$state": self._state(value, path)}
        if tensors.is_tensor(value):
            return self._tensor(value, path)
        if (adapter := adapters.adapter_of(value)) is not None:
            return self.node(_parts_of(getattr(adapter, "within", adapter.take)(value)), path)
        raise InvalidStateError(
            f"{'/'.join(path)} is a {kind.__module__}.{kind.__qualname__}, which cannot be kept exactly",
            next_step="give plain Python values, NumPy arrays or torch tensors",
        )

    def _dict(self, value: dict[Any, Any], path: tuple[str, ...]) -> Json:
        if all(type(key) is str and not key.startswith("$") and is_unicode(key) for key in value):
            # Paths are given in the order of the names, so that they do not depend on the order of insertion.
            nodes = {key: self.node(value[key], (*path, _escape(key))) for key in sorted(value)}
            return {key: nodes[key] for key in value}
        return {"$dict": self._pairs(value, path, by_key=True)}

    def _pairs(self, value: dict[Any, Any], path: tuple[str, ...], *, by_key: bool) -> list[Json]:
        """Return the pairs of a dictionary, whose items get their paths by key or in the order of insertion."""
        pairs: list[list[Json]] = [[self._key(key, path), (key, item)] for key, item in value.items()]
        for pair in sorted(pairs, key=_text_of_key) if by_key else pairs:
            key, item = pair[1]
            pair[1] = self.node(item, (*path, _escape(_spelled(key))))
        return pairs

    def _key(self, key: object, path: tuple[str, ...]) -> Json:
        node = self.node(key, (*path, "key"))  # first, since it counts levels
        if not _is_plain_key(key):
            raise InvalidStateError(
                f"{'/'.join(path)} has a key of type {type(key).__name__}, which is not kept",
                next_step="give keys of Python's own types, or tuples of them",
            )
        return node

    def _bytes(self, value: bytes, path: tuple[str, ...]) -> Json:
        if len(value) <= _LONG_BYTES:
            return base64.b64encode(value).decode("ascii")
        return {"$array": self._keep(np.frombuffer(value, np.uint8), path)}

    def _array(self, value: AnyArray, path: tuple[str, ...]) -> Json:
        if type(value) not in {np.ndarray, np.memmap}:
            raise InvalidStateError(
                f"{'/'.join(path)} is a {type(value).__name__}, which means more than its items",
                next_step="give np.asarray of it, and what else it says beside it",
            )
        key = _memory_of(value)
        known = self._known.get(key)
        stored, facts = dtypes.to_stored(value, "/".join(path))
        if known is None:
            known = self._known[key] = (self._keep(stored, path), value)
        return {"$array": known[0], **facts}

    def _tensor(self, value: Any, path: tuple[str, ...]) -> Json:
        stored, facts = tensors.to_stored(value, "/".join(path))
        key = tensors.identity(value)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (self._keep(stored, path), value)
        return {"$torch": {"$array": known[0], **facts}}

    def _state(self, state: QuantumState, path: tuple[str, ...]) -> Json:
        def place(array: Any, name: tuple[str, ...]) -> Json:
            if not is_elsewhere(array):
                return self._array(array, (*path, *name))
            known = self._known.get(id(array))
            if known is None:
                known = self._known[id(array)] = (self._keep(array, (*path, *name)), array)
            return {"$array": known[0]}

        return state_node(state, place)

    def _keep(self, array: AnyArray, path: tuple[str, ...]) -> str:
        if array.ndim > MAX_DIMENSIONS:
            raise InvalidStateError(f"{'/'.join(path)} has more than {MAX_DIMENSIONS} axes", next_step="reshape it")
        name = "/".join(path)
        if len(name) > _LONG_NAME:
            name = f"{name[:_LONG_NAME]}~{hashlib.sha256(name.encode()).hexdigest()}"
        full, count = name, 1
        while full in self.arrays:  # an int key and a str key may spell the same
            count += 1
            full = f"{name}~{count}"
        self.arrays[full] = array
        return full


class _Builder:
    def __init__(self, arrays: Mapping[str, AnyArray]) -> None:
        self._arrays = arrays
        self._built: dict[str, Any] = {}  # by the text of the node: tied items are one object

    def value(self, node: Json, depth: int) -> Any:
        """Return the value of `node`."""
        if depth >= MAX_DEPTH:
            raise UnsafeError("its document is nested too deeply", next_step="do not trust this file")
        if isinstance(node, list):
            return [self.value(item, depth + 1) for item in node]
        if not isinstance(node, dict):
            return node
        marker = next((key for key in node if key.startswith("$")), None)
        if marker is None:
            return {key: self.value(item, depth + 1) for key, item in node.items()}
        return self._marked(marker, node, depth)

    def _marked(self, marker: str, node: dict[str, Json], depth: int) -> Any:
        body = node[marker]
        if len(node) > 1 and marker != "$array":
            raise IntegrityError(f"its document has something beside {marker[:40]!r}", next_step=RESTORE)
        match marker:
            case "$array":
                return self._array(node)
            case "$torch":
                return self._tensor(body)
            case "$tuple":
                return tuple(self.value(item, depth + 1) for item in body)
            case "$dict":
                return self._pairs(body, depth, dict)
            case "$ordered":
                return self._pairs(body, depth, OrderedDict)
            case "$state_dict":
                made = self._pairs(body["items"], depth, OrderedDict)
                made._metadata = self.value(body["metadata"], depth + 1)
                return made
            case "$scalar":
                return dtypes.scalar(body[0], base64.b64decode(body[1], validate=True))
            case "$int":
                value = int(body, 16)
                if format(value, "x") != body:
                    raise IntegrityError("its document has an integer that no release writes", next_step=RESTORE)
                return value
            case "$float":
                return struct.unpack(">d", bytes.fromhex(body))[0]
            case "$complex":
                real, imaginary = body
                return complex(self.value(real, depth), self.value(imaginary, depth))
            case "$bytes":
                if isinstance(body, dict):
                    return self._array(body).tobytes()
                return base64.b64decode(body, validate=True)
            case "$text":
                return base64.b64decode(body, validate=True).decode("utf-8", "surrogatepass")
            case "$state":
                return state_from_node(body, self._array)
        raise UnsupportedVersionError(
            f"its document has a part of kind {marker[:40]!r}, which this release does not know",
            next_step="read it with a newer release of quantum-memory",
        )

    def _pairs(self, body: list[list[Json]], depth: int, kind: type[dict[Any, Any]]) -> Any:
        pairs = [(self.value(key, depth + 1), self.value(item, depth + 1)) for key, item in body]
        made = kind(pairs)
        if len(made) != len(pairs):
            raise IntegrityError("its document has a key twice", next_step=RESTORE)
        return made

    def _array(self, node: dict[str, Json]) -> AnyArray:
        built: AnyArray = self._once("$array", node, dtypes.from_stored)
        return built

    def _tensor(self, node: dict[str, Json]) -> Any:
        return self._once("$torch", node, tensors.from_stored)

    def _once(self, marker: str, node: dict[str, Json], build: Callable[[AnyArray, dict[str, Json]], Any]) -> Any:
        """Build the item of a node, or return the one that an equal node gave."""
        key = marker + json.dumps(node, sort_keys=True)
        if key not in self._built:
            self._built[key] = build(self._stored(node["$array"]), node)
        return self._built[key]

    def _stored(self, path: str) -> AnyArray:
        try:
            return self._arrays[path]
        except KeyError:
            raise IntegrityError(
                f"its document names the array {path[:80]!r}, which is not there", next_step=RESTORE
            ) from None


def state_node(state: QuantumState, place: Any) -> dict[str, Json]:
    """Return the node of a quantum state; `place(array, name)` stores an array and returns its node."""
    common: dict[str, Json] = {} if state.labels is None else {"labels": list(state.labels)}
    if isinstance(state, MatrixProductState):
        node: dict[str, Json] = {
            "kind": "matrix_product_state",
            "sites": [place(t, ("site", str(i))) for i, t in enumerate(state.tensors)],
        }
        if state.canonical_form is not None:
            node["canonical_form"] = state.canonical_form
        if state.orthogonality_center is not None:
            node["orthogonality_center"] = state.orthogonality_center
        if state.log_scale != 0 or np.signbit(state.log_scale):
            node["log_scale"] = _float(state.log_scale)
        return {**node, **common}
    common |= {"dims": list(state.dims)}
    if isinstance(state, StabilizerState):
        return {"kind": "stabilizer_state", **common, "tableau": place(state.tableau, ("tableau",))}
    common |= {"qubit_order": state.qubit_order}
    if isinstance(state, Operator):  # not at the path of a density matrix, which may be packed with loss
        return {"kind": "operator", **common, "matrix": place(state.matrix, ("operator",))}
    if isinstance(state, DensityMatrix):
        return {"kind": "density_matrix", **common, "matrix": place(state.matrix, ("matrix",))}
    amplitudes = state.held if isinstance(state, ShardedStateVector) else state.amplitudes
    return {"kind": "state_vector", **common, "amplitudes": place(amplitudes, ("amplitudes",))}


def state_from_node(node: dict[str, Json], fetch: Any) -> QuantumState:
    """Return the quantum state of a node; `fetch(array node)` returns an array."""
    kind = node["kind"]
    labels = node.get("labels")
    if kind == "matrix_product_state":
        log_scale = node.get("log_scale", 0.0)
        return MatrixProductState(
            [fetch(site) for site in node["sites"]],
            labels=labels,
            canonical_form=node.get("canonical_form"),
            orthogonality_center=node.get("orthogonality_center"),
            log_scale=unflatten(log_scale, {}),
        )
    if kind == "state_vector":
        return StateVector(fetch(node["amplitudes"]), qubit_order=node["qubit_order"], dims=node["dims"], labels=labels)
    if kind in {"density_matrix", "operator"}:
        matrix_of = DensityMatrix if kind == "density_matrix" else Operator
        return matrix_of(fetch(node["matrix"]), qubit_order=node["qubit_order"], dims=node["dims"], labels=labels)
    if kind == "stabilizer_state":
        made = StabilizerState(fetch(node["tableau"]), labels=labels)
        if node["dims"] != list(made.dims):
            raise IntegrityError("a tableau is not of as many qubits as its document says", next_step=RESTORE)
        return made
    raise UnsupportedVersionError(
        f"it holds a quantum state of kind {str(kind)[:40]!r}, which this release does not know",
        next_step="read it with a newer release of quantum-memory",
    )


def _parts_of(taken: Any) -> Any:
    """Return what an adapter took as it stands in a tree: a memory as a dict of its parts, all else as it is."""
    if isinstance(taken, (*get_args(QuantumState), np.ndarray)):
        return taken
    emotion = None if taken.emotion is None else taken.emotion.to_dict()
    parts = {"quantum": taken.quantum, "classical": taken.classical, "emotion": emotion, "metadata": taken.metadata}
    found = {name: part for name, part in parts.items() if part is not None and part != {}}
    return found["quantum"] if list(found) == ["quantum"] else found


def _scalar(value: np.generic, where: str) -> list[Json]:
    stored, facts = dtypes.to_stored(np.asarray(value), where)
    name = facts.get("dtype", dtype_name(stored.dtype))
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    # NumPy drops the NUL characters at the end of the text of an array; those of a scalar are part of it.
    if dtypes.scalar(name, data).tobytes() != value.tobytes():
        raise InvalidStateError(f"{where} is a {type(value).__name__} that ends with NUL", next_step="give a plain str")
    return [name, base64.b64encode(data).decode("ascii")]


def _float(value: float) -> Json:
    finite = value - value == 0
    return value if finite else {"$float": struct.pack(">d", value).hex()}


def _text(value: str) -> Json:
    if is_unicode(value):
        return value
    return {"$text": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii")}


def _escape(component: str) -> str:
    """Make a key a component of a path, as JSON Pointer does (RFC 6901); `HIDDEN` characters become their numbers."""
    return HIDDEN.sub(lambda found: f"~{ord(found[0]):04x}", component.replace("~", "~0").replace("/", "~1"))


def _spelled(key: object) -> str:
    try:
        return str(key)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "~int"


def _memory_of(array: AnyArray) -> object:
    """Return what two arrays share when they are the same memory seen in the same way, as a state sees its own."""
    if not array.size:
        return id(array)
    return (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)


def _is_plain_key(key: object) -> bool:
    if type(key) is tuple:
        return all(map(_is_plain_key, key))
    if type(key) is bytes:
        return len(key) <= _LONG_BYTES
    return key is None or type(key) in {bool, int, float, complex, str}
