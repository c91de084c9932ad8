"""A reader of arrays that are in a form, which shows them as if they were stored as they are.

They are unpacked window by window: into the array that is asked for, or to be looked at and dropped.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from quantum_memory.errors import IntegrityError, UnsupportedVersionError
from quantum_memory.formats.form_nodes import Checksums
from quantum_memory.formats.reader import (
    Reader,
    WholeEntry,
    check_budget,
    check_out,
    damaged,
    look_up,
    nbytes_of,
    new_array,
)
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, chunk_count, chunk_items
from quantum_memory.state.json_text import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantum_memory.compression.forms.base import Part
    from quantum_memory.compression.forms.views import View
    from quantum_memory.formats.form_nodes import ChecksumsInOrder, FormNode, Forms
    from quantum_memory.formats.reader import Entry, Verify
    from quantum_memory.state.arrays import AnyArray

_WINDOW = 8 * CHUNK_BYTES

_MOST_RATIO = 64


class StoredReader(Reader, Protocol):
    """A reader of the arrays that a file stores, some of which may be parts of others.

    Attributes
    ----------
    forms
        Which are.
    """

    forms: Forms


def with_forms(reader: StoredReader, max_bytes: int | None = None) -> Reader:
    """Return a reader of the arrays of the memory, from one of the arrays that its file stores; see `FormReader`."""
    return FormReader(reader, max_bytes) if reader.forms.nodes else reader


class FormReader:
    """A reader that unpacks what another one reads.

    Parameters
    ----------
    inner
        A reader of the arrays that are stored.
    max_bytes
        How large an array may be to be computed for a look; by default as large as the memory, or `_MOST_RATIO` times
        what is stored of it. A short file can state any length, and to compute it would take any time.
    """

    def __init__(self, inner: StoredReader, max_bytes: int | None = None) -> None:
        self.inner = inner
        self._max_bytes = max_bytes
        self.forms = forms = inner.forms
        self.format, self.version, self.name, self.size = inner.format, inner.version, inner.name, inner.size
        self.member, self.notes = inner.member, inner.notes
        self.document, self.record = inner.document, inner.record
        parts = {part for node in forms.nodes.values() for part in node.parts.values()}
        self.entries: dict[str, Entry] = {path: one for path, one in inner.entries.items() if path not in parts}
        for path, node in forms.nodes.items():
            nbytes = nbytes_of(node.identity.dtype, node.identity.shape)
            self.entries[path] = WholeEntry(node.identity, nbytes)
        self._views: dict[str, View] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> str | None:
        """Where it is for good, with the id of its version; None for a file."""
        return getattr(self.inner, "address", None)

    def share(self) -> None:
        self.inner.share()

    def in_windows(self, path: str) -> bool:
        """Tell whether a part of an array that is in a form can be had without the rest of it."""
        return not self._view(path, self.forms.nodes[path]).is_whole

    def facts(self, path: str) -> dict[str, Any]:
        node = self.forms.nodes.get(path)
        if node is None:
            return self.inner.facts(path)
        each = [self.inner.facts(part) for part in node.parts.values()]
        return {
            "form": node.form,
            "stored_bytes": len(to_json(node.facts))
            + sum(
                facts.get("stored_bytes", self.inner.entries[part].nbytes)
                for facts, part in zip(each, node.parts.values(), strict=True)
            ),
            "chunks": sum(facts.get("chunks", 1) for facts in each),
            "codecs": sorted({codec for facts in each for codec in facts.get("codecs", ())}),
            "tried": node.tried,
            "certificate": None if node.certificate is None else node.certificate.to_dict(),
        }

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
    ) -> AnyArray:
        node = self.forms.nodes.get(path)
        if node is None:
            return self.inner.read(path, out=out, verify=verify, progress=progress)
        entry = look_up(self.entries, path, self.name)
        array = new_array(entry, path, self.name) if out is None else check_out(out, entry, path, self.name)
        for items in self._checked(path, node, verify, array.reshape(-1)):
            if progress is not None:
                progress(items.nbytes)
        return array

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        node = self.forms.nodes.get(path)
        if node is None:
            return self.inner.read_items(path, start, stop)
        with self._lock:
            view = self._views.get(path)
            if view is None:
                view = self._view(path, node)
                if view.is_whole:
                    self.check_size(path)
                self._views[path] = view
        start, stop, _ = slice(start, stop).indices(view.size)
        items: AnyArray = np.empty(max(0, stop - start), view.dtype)
        with self._told(path, node):
            view.read(start, items)
        return items

    def map(self, path: str, *, verify: Verify = "fast", progress: Callable[[int], object] | None = None) -> AnyArray:
        if path in self.forms.nodes:
            return self.read(path, verify=verify, progress=progress)
        return self.inner.map(path, verify=verify, progress=progress)

    def is_mapped(self, path: str) -> bool:
        return path not in self.forms.nodes and self.inner.is_mapped(path)

    def check_rest(self) -> None:
        self.inner.check_rest()

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        def look_at_plain(path: str, items: AnyArray) -> None:
            if look is not None and path in self.entries:
                look(path, items)

        chunks = self.inner.check_everything(progress, look_at_plain)
        for path, node in self.forms.nodes.items():
            self.check_size(path)
            for items in self._checked(path, node, "full"):
                if look is not None:
                    look(path, items)
            if progress is not None:
                progress(
                    max(
                        0,
                        self.entries[path].nbytes
                        - sum(self.inner.entries[part].nbytes for part in node.parts.values()),
                    )
                )
        return chunks

    def close(self) -> None:
        self._views.clear()
        self.inner.close()

    def unpacked(self, path: str) -> Iterator[AnyArray]:
        """Yield the chunks of an array in a form, and compare all of it with every digest there is."""
        self.check_size(path)
        yield from self._checked(path, self.forms.nodes[path], "full")

    def check_size(self, path: str) -> None:
        """Refuse to compute an array that is much longer than what is stored of it, and than what is allowed."""
        nbytes = self.entries[path].nbytes
        if self._max_bytes is not None or nbytes > _MOST_RATIO * self.facts(path)["stored_bytes"]:
            check_budget(nbytes, self._max_bytes, self.name)

    def _view(self, path: str, node: FormNode) -> View:
        from quantum_memory.compression.forms.registry import form_named  # noqa: PLC0415 - few files have forms

        parts: dict[str, Part] = {name: _StoredPart(self.inner, part) for name, part in node.parts.items()}
        with self._told(path, node):
            dtype = np.dtype(STORABLE[node.identity.dtype])
            return form_named(node.form).view(node.facts, parts, dtype, node.identity.shape)

    def _checked(self, path: str, node: FormNode, verify: Verify, out: AnyArray | None = None) -> Iterator[AnyArray]:
        """Unpack an array, into `out` where there is one, and yield its chunks; compare it with what is known of it.

        Checksums of the parts say that they are whole, this that they are understood. An array that is identified by
        its parts has been checked with them.
        """
        from quantum_memory.compression.forms.views import scan  # noqa: PLC0415 - few files have forms

        view = self._view(path, node)
        sums = Checksums(self.entries[path].nbytes, digests=verify == "full")
        with self._told(path, node):
            for _, row in scan(view, _ignore if node.by_parts else sums.look, out):
                yield from (chunk_items(row, index) for index in range(chunk_count(row.nbytes)))
        if not node.by_parts:
            self.compare(path, sums)

    def compare(self, path: str, sums: Checksums | ChecksumsInOrder) -> None:
        """Compare what was unpacked of an array with what is known of it.

        Raises
        ------
        IntegrityError
        """
        node = self.forms.nodes[path]
        if sums.checksum != node.checksum or sums.digest not in {None, node.identity.digest}:
            raise damaged(f"its array {path!r}, in the form {node.form!r}, does not match its checksum", self.name)

    @contextmanager
    def _told(self, path: str, node: FormNode) -> Iterator[None]:
        """Say of which array an error is."""
        try:
            yield
        except UnsupportedVersionError as error:
            raise error.at(self.name)  # noqa: B904 - it is the same error
        except IntegrityError as error:  # which several threads may have got
            raise IntegrityError(
                f"its array {path!r}, in the form {node.form!r}: {error.message}",
                path=error.path or self.name,
                next_step=error.next_step,
            ) from error


def _ignore(index: int, items: AnyArray) -> None:
    """Look at a chunk of which nothing is to be noted."""


def lossy_arrays(reader: Reader) -> dict[str, FormNode]:
    """Return the arrays that are in a form with loss, by path."""
    if not isinstance(reader, FormReader):
        return {}
    return {path: node for path, node in reader.forms.nodes.items() if node.certificate is not None}


def read_parts(reader: Reader, nodes: Mapping[str, FormNode], leave: Callable[[str], Any]) -> dict[str, AnyArray]:
    """Return the parts of arrays as they are stored, by path.

    Parameters
    ----------
    leave
        Returns what stands for a part that is to stay where it is; None for one that is to be read.
    """
    if not isinstance(reader, FormReader):
        return {}
    parts = {}
    for path in (part for node in nodes.values() for part in node.parts.values()):
        left = leave(path)
        parts[path] = reader.inner.read(path) if left is None else left
    return parts


class StoredRow:
    """An array of one axis in a file, of which only the slices that are taken are read."""

    def __init__(self, reader: Reader, path: str) -> None:
        self._reader = reader
        self._path = path
        entry = reader.entries[path]
        self.shape = entry.shape
        self.dtype = np.dtype(STORABLE[entry.dtype])

    def __getitem__(self, items: slice) -> AnyArray:
        start, stop, _ = items.indices(self.shape[0])
        return self._reader.read_items(self._path, start, stop)


class _StoredPart(StoredRow):
    """A part, of which slices are taken that lie next to one another: it is read a window at a time."""

    def __init__(self, reader: Reader, path: str) -> None:
        super().__init__(reader, path)
        self._window: tuple[int, AnyArray] | None = None
        self._lock = threading.Lock()

    def __getitem__(self, items: slice) -> AnyArray:
        start, stop, step = items.indices(self.shape[0]) if len(self.shape) == 1 else (0, 0, 1)
        if step != 1:
            raise ValueError("a part is read in slices of step 1")
        out = np.empty(max(0, stop - start), self.dtype)
        for low, window in self._windows(start, stop):
            first, last = max(start, low), min(stop, low + len(window))
            out[first - start : last - start] = window[first - low : last - low]
        return out

    def _windows(self, start: int, stop: int) -> Iterator[tuple[int, AnyArray]]:
        length = _WINDOW // self.dtype.itemsize
        for low in range(start // length * length, stop, length):
            with self._lock:
                known = self._window
                if known is None or known[0] != low:
                    known = (low, self._reader.read_items(self._path, low, min(low + length, self.shape[0])))
                    self._window = known
            yield known
