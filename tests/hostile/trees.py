"""MessagePack, its Base64 and pickles: other values, other spellings and programs, with a right SHA-256 and without."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

import quantum_memory as qm
from quantum_memory.formats.pickle_format import to_pickle
from quantum_memory.state.document import ArrayIdentity, content_id

from .case import DAMAGED, UNSAFE, Case

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = '{"document":{"classical_data":{"$array":"classical"}},"record":{}}'
VALUES = np.array([1.0, 2.0])
NAME = qm.MemoryState(classical=VALUES).content_id
ARRAY = {"dtype": "f64", "shape": [2], "data": VALUES.tobytes()}


def name_of(*paths: str) -> str:
    """Return the name of a content whose document names one array, and that has these."""
    array = ArrayIdentity("f64", (2,), hashlib.sha256(VALUES.tobytes()).digest())
    return content_id({"classical_data": {"$array": "classical"}}, dict.fromkeys(paths, array))


def sealed(body: bytes) -> bytes:
    """Return bytes with the SHA-256 that makes them whole: what an attacker can do as well."""
    return body + hashlib.sha256(body).digest()


def tree(**lies) -> dict:
    parts = {
        "format": "quantum-memory",
        "version": "2.0",
        "arrays": {"classical": ARRAY},
        "document": DOCUMENT,
        "content_id": NAME,
    }
    return parts | lies


def forged(parts: dict, tail: bytes = b"") -> bytes:
    """Return a file of these parts, with its seal as the last value of the map."""
    body = msgpack.packb(parts | {"sha256": bytes(32)})
    return sealed(body[:-32] + tail)


def edited(old: bytes, new: bytes) -> bytes:
    body = forged(tree())[:-32]
    assert body.count(old) == 1
    return sealed(body.replace(old, new))


_TREES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "an extension type": ("calls a hook", lambda: forged(tree(document=msgpack.ExtType(5, b"x")))),
    "a timestamp": ("makes a date of it", lambda: forged(tree(version=msgpack.Timestamp(1, 2)))),
    "an extension type among the arrays": (
        "calls a hook",
        lambda: forged(tree(arrays={"classical": msgpack.ExtType(1, b"x" * 16)})),
    ),
    "a key twice": (
        "keeps the last",
        lambda: sealed(msgpack.packb(tree() | {"sha256": bytes(32)}).replace(b"\xa7version", b"\xa6format")[:-32]),
    ),
    "an array twice": (
        "keeps the last",
        lambda: edited(b"\x81\xa9classical", b"\x82\xa9classical" + msgpack.packb(ARRAY) + b"\xa9classical"),
    ),
    "arrays out of order": (
        "gives them another name",
        lambda: forged(tree(arrays={"classical/b": ARRAY, "classical/a": ARRAY})),
    ),
    "an array that the document does not name": (
        "drops it when it saves again",
        lambda: forged(tree(arrays={"classical": ARRAY, "x": ARRAY}, content_id=name_of("classical", "x"))),
    ),
    "no array": ("crashes halfway", lambda: forged(tree(arrays={}, content_id=name_of()))),
    "arrays that are a list": ("crashes", lambda: forged(tree(arrays=[ARRAY]))),
    "parts in another order": ("gives it another name", lambda: forged(dict(reversed(tree().items())))),
    "a part that no release writes": ("drops it when it saves again", lambda: forged(tree(more=1))),
    "a part that is missing": (
        "makes it up",
        lambda: forged({key: part for key, part in tree().items() if key != "content_id"}),
    ),
    "a list of lists without end": ("overflows the C stack", lambda: sealed(b"\x91" * 100_000)),
    "maps in maps without end": ("overflows the C stack", lambda: sealed(b"\x81\xa1a" * 100_000)),
    "nesting inside the tree": ("overflows the C stack", lambda: sealed(forged(tree())[:20] + b"\x91" * 100_000)),
    "a document nested without end": ("overflows the C stack", lambda: forged(tree(document="[" * 100_000))),
    "a document of a million values": (
        "makes 60 MB of them",
        lambda: forged(tree(document='{"document":{},"record":[' + "0," * 1_000_000 + "0]}")),
    ),
    "a document that is bytes": ("guesses an encoding", lambda: forged(tree(document=DOCUMENT.encode()))),
    "a document with a key twice": (
        "keeps the last",
        lambda: forged(tree(document='{"document":{},"document":{},"record":{}}')),
    ),
    "a document that is a list": ("crashes", lambda: forged(tree(document="[]"))),
    "a document with NaN": ("reads it", lambda: forged(tree(document='{"document":{"metadata":NaN},"record":{}}'))),
    "text that is not UTF-8": ("crashes where it is printed", lambda: edited(b"f64", b"\xff\xfe\xfd")),
    "data of 4 GiB that are not there": (
        "allocates 4 GiB",
        lambda: edited(b"\xc4\x10" + VALUES.tobytes(), b"\xc6\xff\xff\xff\xff"),
    ),
    "text of 4 GiB that is not there": ("allocates 4 GiB", lambda: edited(b"\xa9classical", b"\xdb\xff\xff\xff\xff")),
    "a map of four thousand million": (
        "makes room for all of it",
        lambda: edited(b"\x81\xa9classical", b"\xdf\xff\xff\xff\xff\xa9classical"),
    ),
    "a shape of 65535 axes": (
        "makes an array of so many",
        lambda: edited(b"\xa5shape\x91\x02", b"\xa5shape\xdc\xff\xff" + b"\x01" * 65535),
    ),
    "a shape past every memory": (
        "allocates it",
        lambda: forged(tree(arrays={"classical": ARRAY | {"shape": [1 << 62, 4]}})),
    ),
    "a shape of nothing times too much": (
        "overflows",
        lambda: forged(tree(arrays={"classical": {"dtype": "f64", "shape": [0, 1 << 63, 1 << 63], "data": b""}})),
    ),
    "a negative length": ("lets NumPy guess", lambda: forged(tree(arrays={"classical": ARRAY | {"shape": [-2]}}))),
    "a length that is a float": ("rounds it", lambda: forged(tree(arrays={"classical": ARRAY | {"shape": [2.0]}}))),
    "a dtype of objects": (
        "takes eight bytes for a pointer",
        lambda: forged(tree(arrays={"classical": ARRAY | {"dtype": "O"}})),
    ),
    "a dtype of another size": (
        "reads past its end",
        lambda: forged(tree(arrays={"classical": ARRAY | {"dtype": "f32"}})),
    ),
    "other data": ("never compares them", lambda: forged(tree(arrays={"classical": ARRAY | {"data": bytes(16)}}))),
    "another name": ("never compares it", lambda: forged(tree(content_id="0" * 64))),
    "a number in a longer form than it needs": (
        "gives one state two files",
        lambda: edited(b"\xa5shape\x91\x02", b"\xa5shape\x91\xcc\x02"),
    ),
    "text in a longer form than it needs": ("gives one state two files", lambda: edited(b"\xa3f64", b"\xd9\x03f64")),
    "more arrays than any release writes": (
        "makes an object of each",
        lambda: forged(tree(arrays={f"{n:07}": {"dtype": "u8", "shape": [], "data": b"x"} for n in range(20_000)})),
    ),
    "something after its last value": ("ignores it", lambda: forged(tree(), b"\xc0")),
    "nothing": ("takes it for an empty state", lambda: b""),
    "a seal of nothing": ("takes it for an empty state", lambda: sealed(b"")),
    "no map": ("crashes", lambda: sealed(b"\xc0")),
    "another format": ("reads it all the same", lambda: forged(tree(format="quantum-mammary"))),
    "no version": ("compares it", lambda: forged(tree(version="two"))),
}
_OTHERWISE = {
    "maps in maps without end": UNSAFE,
    "a document nested without end": UNSAFE,
    "a document of a million values": UNSAFE,
    "a shape of nothing times too much": "BudgetError",
    **dict.fromkeys(["os.system", "eval", "exec, inside what looks like ours", "an import", "protocol 0"], UNSAFE),
    "lists in lists without end": UNSAFE,
}
TREES = [
    Case(f"{title}, in MessagePack", naive, _OTHERWISE.get(title, DAMAGED), build, "msgpack")
    for title, (naive, build) in _TREES.items()
]


class Attack:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


def inside(part: object) -> bytes:
    """Return a pickle that looks like ours, with something else in it."""
    tree = {"format": "quantum-memory", "version": "2.0", "arrays": {}, "document": part, "content_id": "0"}
    return pickle.dumps(tree, protocol=5)


def ours(old: bytes, new: bytes) -> bytes:
    body = to_pickle(qm.MemoryState(classical=VALUES))[:-32]
    assert body.count(old) == 1
    return sealed(body.replace(old, new))


_PICKLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "os.system": ("runs it", lambda: pickle.dumps(Attack(os.system, "touch hurt"))),
    "eval": ("runs it", lambda: pickle.dumps(Attack(eval, "1+1"))),
    "exec, inside what looks like ours": ("runs it", lambda: inside(Attack(exec, "raise SystemExit"))),
    "an import": ("imports it", lambda: pickle.dumps(Attack(__import__, "this"))),
    "protocol 0": ("runs it", lambda: b"cos\nsystem\n(S'touch hurt'\ntR."),
    "a global in the place of text": ("imports it", lambda: ours(b"\x8c\x07version", b"cos\nsystem\n")),
    "a call at its end": ("calls it", lambda: ours(b"u.", b"ucos\nsystem\n(\x8c\x02lstR.")),
    "a call before its end": (
        "calls it",
        lambda: ours(b"\x8c\x0acontent_id", b"cos\nsystem\n(\x8c\x02lstR\x8c\x0acontent_id"),
    ),
    "a persistent id": ("asks for what it names", lambda: ours(b"\x8c\x07version", b"P1\n\x8c\x07version")),
    "an extension": (
        "looks it up in a registry, and imports it",
        lambda: ours(b"\x8c\x07version", b"\x82\x01\x8c\x07version"),
    ),
    "a memo of four thousand million": (
        "makes a list of so many",
        lambda: ours(b"\x8c\x07version", b"r\xff\xff\xff\xff\x8c\x07version"),
    ),
    "a memo": ("remembers", lambda: ours(b"\x8c\x07version", b"\x94\x8c\x07version")),
    "a frame": ("reads ahead", lambda: ours(b"\x80\x05", b"\x80\x05\x95" + bytes(8))),
    "another protocol": ("reads it all the same", lambda: ours(b"\x80\x05", b"\x80\x04")),
    "bytes of 16 EiB": ("allocates them", lambda: ours(b"C\x10" + VALUES.tobytes(), b"\x8e" + b"\xff" * 8)),
    "bytes of 8 EiB": ("allocates them", lambda: ours(b"C\x10" + VALUES.tobytes(), b"\x8e" + b"\xff" * 7 + b"\x7f")),
    "text of 4 GiB": ("allocates it", lambda: ours(b"\x8c\x09classical", b"X\xff\xff\xff\xff")),
    "a number below zero": ("lets NumPy guess", lambda: ours(b"(K\x02t", b"(J\xff\xff\xff\xfft")),
    "a number in a longer form": ("gives one state two files", lambda: ours(b"(K\x02t", b"(M\x02\x00t")),
    "a long number": ("takes quadratic time", lambda: ours(b"(K\x02t", b"(\x8b\xff\xff\xff\x7ft")),
    "a shape without end": (
        "makes an array of so many axes",
        lambda: ours(b"(K\x02t", b"(" + b"K\x01" * 100_000 + b"t"),
    ),
    "a shape that does not end": ("crashes", lambda: ours(b"(K\x02t", b"(" + b"K\x01" * 100)),
    "lists in lists without end": (
        "overflows the C stack",
        lambda: b"\x80\x05" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ),
    "a buffer that is not there": ("crashes", lambda: ours(b"C\x10" + VALUES.tobytes(), b"\x97\x98")),
    "a bytearray": ("makes it", lambda: ours(b"C\x10" + VALUES.tobytes(), b"\x96\x10" + bytes(7) + VALUES.tobytes())),
    "a dict that grows after its end": ("lets it grow", lambda: ours(b"u.", b"u(\x8c\x01a\x8c\x01bu.")),
    "two pickles": (
        "leaves the second for whoever reads on",
        lambda: ours(b"u.", b"u." + pickle.dumps(Attack(os.system, "ls"))),
    ),
    "a pickle without a seal": ("believes it", lambda: pickle.dumps({"format": "quantum-memory"}, protocol=5)),
    "nothing": ("crashes", lambda: b""),
}
PICKLES = [
    Case(f"{title}, in a pickle", naive, _OTHERWISE.get(title, DAMAGED), build, "pkl", "state with pickles")
    for title, (naive, build) in _PICKLES.items()
]


def calling(module: str, name: str, *arguments: object) -> bytes:
    """Return a pickle that calls something by its name."""
    return b"\x80\x04" + f"c{module}\n{name}\n".encode() + b"(" + pickled(arguments) + b"tR."


def pickled(arguments: tuple[object, ...]) -> bytes:
    return b"".join(pickle.dumps(one, protocol=2)[2:-1] for one in arguments)


def doubling() -> bytes:
    """Return a pickle of a tuple of lists, each twice in the next one."""
    lists = (b"](h%ch%ce\x94" % (n, n) for n in range(40))
    return b"\x80\x04(]\x94" + b"".join(lists) + b"t."


PROGRAMS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "os.system": ("runs it", UNSAFE, lambda: calling("os", "system", "touch hurt")),
    "posix.system": ("runs it", UNSAFE, lambda: calling("posix", "system", "touch hurt")),
    "pkgutil.resolve_name": (
        "finds whatever it names",
        UNSAFE,
        lambda: calling("pkgutil", "resolve_name", "os:system"),
    ),
    "operator.attrgetter": ("finds whatever it names", UNSAFE, lambda: calling("operator", "attrgetter", "__class__")),
    "functools.partial": ("calls it later", UNSAFE, lambda: calling("functools", "partial", len)),
    "importlib.import_module": ("imports it", UNSAFE, lambda: calling("importlib", "import_module", "this")),
    "builtins.getattr": ("finds whatever it names", UNSAFE, lambda: calling("builtins", "getattr", "a", "upper")),
    "torch.load": ("reads another pickle", UNSAFE, lambda: calling("torch", "load", "canary")),
    "numpy.load": ("reads another pickle", UNSAFE, lambda: calling("numpy", "load", "canary")),
    "a pickle in a pickle": (
        "reads it in turn",
        UNSAFE,
        lambda: calling("pickle", "loads", calling("os", "system", "ls")),
    ),
    "a class of ours": ("makes it, whatever is in it", UNSAFE, lambda: calling("quantum_memory", "StateVector", 1)),
    "a memo that is not there": ("crashes", DAMAGED, lambda: b"\x80\x04j\xff\xff\xff\x7f."),
    "a memo that is itself": ("walks in circles", UNSAFE, lambda: b"\x80\x04]\x94h\0a."),
    "a list that doubles forty times": ("makes 2**40 items", UNSAFE, doubling),
    "1 GiB of bytes that are not there": (
        "allocates them",
        DAMAGED,
        lambda: b"\x80\x04\x8e" + (1 << 30).to_bytes(8, "little") + b".",
    ),
    "8 EiB of text that is not there": ("allocates it", DAMAGED, lambda: b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f."),
    "a number of 2 GiB": ("allocates it", DAMAGED, lambda: b"\x80\x04\x8b\xff\xff\xff\x7f."),
    "a hundred thousand marks": ("pushes them", DAMAGED, lambda: b"\x80\x04" + b"(" * 100_000 + b"."),
    "an array of objects": (
        "takes eight bytes for a pointer",
        UNSAFE,
        lambda: pickle.dumps(np.array([{"a": 1}], object), protocol=4),
    ),
    "a state of no kind": ("takes it for one", DAMAGED, lambda: pickle.dumps([1, 2, 3], protocol=4)),
}
PICKLES += [
    Case(f"{title}, in a foreign pickle", naive, error, build, "pkl", "state with pickles")
    for title, (naive, error, build) in PROGRAMS.items()
]
PICKLES += [
    Case(f"{title}, in a pickle that nobody asked for", naive, UNSAFE, build, "pkl")
    for title, (naive, _, build) in list(PROGRAMS.items())[:3]
]


def text(data: bytes = b"") -> bytes:
    """Return the Base64 of a whole file, or of another."""
    return base64.b64encode(data or forged(tree()))


BASE64 = [
    Case(f"{title}, in Base64", naive, DAMAGED, build, "b64")
    for title, naive, build in (
        ("a line end behind it", "ignores it", lambda: text() + b"\n"),
        ("lines of 76 characters", "joins them", lambda: base64.encodebytes(forged(tree()))),
        ("padding in the middle", "stops there", lambda: text()[:40] + b"====" + text()[44:]),
        ("two texts in one", "reads the first", lambda: text() * 2),
        (
            "the letters of URLs",
            "reads it all the same",
            lambda: base64.urlsafe_b64encode(forged(tree(document=DOCUMENT + "?>?>"))),
        ),
        ("a data URL", "skips what is no Base64", lambda: b"data:;base64," + text()),
        (
            "text of 4 GiB that is not there",
            "allocates it",
            lambda: text(edited(b"\xa9classical", b"\xdb\xff\xff\xff\xff")),
        ),
        ("lists without end", "overflows the C stack", lambda: text(sealed(b"\x91" * 100_000))),
        ("16 MiB of A", "decodes them", lambda: b"A" * (16 << 20)),
    )
]
