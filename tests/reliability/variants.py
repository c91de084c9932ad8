"""Twelve ways to get it wrong: the I/O layer with one thing broken, made of its own source.

A variant names a function and what is changed in its text. A text that is no longer there is an error, so that no
variant goes stale unseen.
"""

import __future__

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from quantum_memory.durability import locks, pack
from quantum_memory.durability.atomic import NewFile
from quantum_memory.durability.chunk_store import ChunkStore
from quantum_memory.formats import qms_layout
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.lifecycle.repository.pruning import Pruner


class Variant(NamedTuple):
    """A function, and what is changed in it.

    Attributes
    ----------
    function
        Of a module, or of a class.
    changes
        Texts, and what takes the place of each.
    """

    function: Callable[..., Any]
    changes: tuple[tuple[str, str], ...]


_SYNC_OF_FILE = "if self._durable:\n        self._files.fsync(self.fd)\n"
_SYNC_TWICE = """if self._durable:
        try:
            self._files.fsync(self.fd)
        except OSError:
            self._files.fsync(self.fd)
"""
_SYNC_OF_FOLDER = "if self._durable:\n        sync_folder(self._files, self._folder)"
_AS_VERIFIED = "self.verified.update(self.guards()[source])"

VARIANTS = {
    "no fsync of the file": Variant(NewFile._publish, ((_SYNC_OF_FILE, "pass\n"),)),
    "no fsync of the folder": Variant(NewFile._publish, ((_SYNC_OF_FOLDER, "pass"),)),
    "rename before fsync": Variant(
        NewFile._publish, ((_SYNC_OF_FILE, "pass\n"), (_SYNC_OF_FOLDER, f"{_SYNC_OF_FILE}    {_SYNC_OF_FOLDER}"))
    ),
    "fsync is tried again": Variant(NewFile._publish, ((_SYNC_OF_FILE, _SYNC_TWICE),)),
    "cleanup only on Exception": Variant(
        NewFile.publish, (("except BaseException as failure:", "except Exception as failure:"),)
    ),
    "checksum skipped": Variant(
        QMSReader._check_stored, (('checksum(stored) != int(entry.chunks["check"][index])', "False"),)
    ),
    "checksum over the wrong bytes": Variant(pack.checksum, (("(data)", "(memoryview(data)[: len(data) // 2])"),)),
    "table not validated": Variant(
        qms_layout._read_table,
        (
            ("position != len(table) or offset != table_offset", "False"),
            ("any(a >= b for a, b in pairwise(keys))", "False"),
        ),
    ),
    "old ones go before the new one is verified": Variant(
        Pruner.prune, (("return self.read_back(source)", f"{_AS_VERIFIED}; return self.verified"),)
    ),
    "the latest is advanced early": Variant(
        ChunkStore.writer, (("PackWriter(self, path, self._durable,", "PackWriter(self, path, False,"),)
    ),
    "lock not taken": Variant(locks._lock, (("while not files.try_lock(fd, not write):", "while False:"),)),
    "lock by the time of the file": Variant(
        locks._lock,
        ((
            "while not files.try_lock(fd, not write):",
            "while files.fstat(fd).st_mtime > time.time() - 1 and not files.try_lock(fd, not write):",
        ),),
    ),
}  # fmt: skip


@contextlib.contextmanager
def broken(name: str) -> Iterator[None]:
    """Have a variant in force: in the class, or in every module that has the function."""
    function, changes = VARIANTS[name]
    text = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert text.count(old) == 1, f"{name}: {old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    inner = inspect.unwrap(function)
    made: dict[str, Any] = {}
    code = compile(text, f"<{name}>", "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    exec(code, inner.__globals__, made)
    places = list(_places(function))
    assert places
    for place in places:
        setattr(place, inner.__name__, made[inner.__name__])
    try:
        yield
    finally:
        for place in places:
            setattr(place, inner.__name__, function)


def _places(function: Callable[..., Any]) -> Iterator[Any]:
    outer, _, name = function.__qualname__.rpartition(".")
    module = sys.modules[function.__module__]
    if outer:
        yield getattr(module, outer)
        return
    for one in list(sys.modules.values()):
        if getattr(one, "__name__", "").startswith("quantum_memory") and vars(one).get(name) is function:
            yield one
