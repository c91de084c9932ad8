"""Read a QMS file: all of it on all cores, or only what is touched."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.codecs import NONE, Codec, codec_with_id, is_known, name_of
from quantum_memory.compression.cores import for_all_parts
from quantum_memory.durability.pack import checksum
from quantum_memory.errors import UPGRADE, IntegrityError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats import qms_layout as layout
from quantum_memory.formats.form_nodes import Forms
from quantum_memory.formats.reader import check_out, damaged, look_up, new_array, parts_of_chunks
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, bytes_of
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import MAX_DOCUMENT_BYTES, parts_of_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.reader import Verify
    from quantum_memory.state.arrays import AnyArray

_LISTED = 5


class QMSReader:
    """An open QMS file.

    Opening reads header, trailer, table and document, and no other byte.

    Parameters
    ----------
    source
        The file; it belongs to the reader, which closes it.
    file_bytes
        Length of the file, where the source is what is encrypted in it. Nothing is mapped then.

    Attributes
    ----------
    name
        Path of the file.
    layout
        The table.
    entries
        The arrays by path.
    document, record
        What the memory says of itself, and what was noted when it was saved.
    forms
        Which arrays are parts of others.
    """

    format = "qms"
    member = ""

    def __init__(self, source: Readable, file_bytes: int | None = None) -> None:
        self.source = source
        self.name = source.name
        self._file_bytes = file_bytes
        self.notes: list[str] = []
        self.layout = layout.read_layout(source)
        self.entries: dict[str, layout.Entry] = {}
        document = None
        for entry in self.layout.entries:
            if entry.section in layout.SECTION_NAMES:
                # The section follows from the path, so that no path can be there twice.
                if layout.SECTION_OF.get(entry.name.partition("/")[0]) != entry.section:
                    raise self._damaged(f"its entry {entry.name[:80]!r} is in a section where it does not belong")
                if entry.section != layout.DOCUMENT:
                    self.entries[entry.name] = entry
                elif entry.name == "document":
                    document = entry
                else:
                    raise self._damaged("it has a second document")
            elif entry.flags & layout.REQUIRED:
                raise UnsupportedVersionError(
                    f"it has a section {entry.section} that this release does not know and must not skip",
                    path=source.name,
                    next_step=UPGRADE,
                )
        if document is None:
            raise self._damaged("it has no document")
        self._last: tuple[tuple[str, int], AnyArray] | None = None
        self._lock = threading.Lock()
        self.document, self.record, self.forms = self._read_document(document)

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def share(self) -> None:
        """Do nothing: each read makes an array of its own."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.source.size if self._file_bytes is None else self._file_bytes

    @property
    def version(self) -> int:
        """Version of the layout."""
        return self.layout.version

    def facts(self, path: str) -> dict[str, Any]:
        """Return how an array is stored."""
        entry = self.entries[path]
        return {
            "stored_bytes": entry.stored_bytes,
            "chunks": len(entry.chunks),
            "codecs": sorted({name_of(number) for number in set(entry.chunks["codec"].tolist())}),
        }

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
        look: Callable[[AnyArray], object] | None = None,
    ) -> AnyArray:
        """Return one array.

        Parameters
        ----------
        out
            Where to put it: a C-contiguous array of the same dtype and shape. When reading fails, its contents are
            undefined.
        verify
            How to check; there is no way not to.
        progress, look
            Called with the raw bytes done, and with the items of each chunk, in any order and from several threads.
        """
        entry = look_up(self.entries, path, self.name)
        array = new_array(entry, path, self.name) if out is None else check_out(out, entry, path, self.name)
        flat = array.reshape(-1)
        per_chunk = CHUNK_BYTES // flat.itemsize if flat.itemsize else 0

        def fill(index: int, offset: int) -> None:
            items = flat[index * per_chunk : (index + 1) * per_chunk]
            self._fill(entry, index, offset, bytes_of(items), verify)
            if look is not None:
                look(items)
            if progress is not None:
                progress(items.nbytes)

        self._on_all_chunks(entry, fill)
        return array

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` of an array in C order; only the chunks that they are in are read and checked."""
        entry = look_up(self.entries, path, self.name)
        dtype = np.dtype(STORABLE[entry.dtype])
        if not 0 <= start <= stop <= entry.nbytes // dtype.itemsize:
            raise IndexError(f"items {start}:{stop} are not within {path}")
        items = np.empty(stop - start, dtype)
        offsets = entry.chunk_offsets()
        for index, there, here in parts_of_chunks(dtype, start, stop):
            items[here] = self._chunk(entry, index, int(offsets[index])).view(dtype)[there]
        return items

    def is_mapped(self, path: str) -> bool:
        """Tell whether an array is stored as it is."""
        entry = self.entries[path]
        return self._file_bytes is None and entry.nbytes > 0 and bool((entry.chunks["codec"] == NONE.id).all())

    def map(self, path: str, *, verify: Verify = "fast", progress: Callable[[int], object] | None = None) -> AnyArray:
        """Return one array as a private view of the file, all its chunks checked.

        Changing it changes neither the file nor another view. An array with a packed chunk is read instead.
        """
        entry = look_up(self.entries, path, self.name)
        if not self.is_mapped(path):
            return self.read(path, verify=verify, progress=progress)
        view = self.source.map(entry.offset, entry.nbytes)

        def check(index: int, offset: int) -> None:
            chunk = view[offset - entry.offset :][: entry.raw_length(index)]
            self._check_stored(entry, index, offset, chunk)
            if verify == "full":
                self._check_raw(entry, index, chunk)
            if progress is not None:
                progress(len(chunk))

        self._on_all_chunks(entry, check)
        array: AnyArray = np.frombuffer(view, STORABLE[entry.dtype]).reshape(entry.shape)
        return array

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        """Check every byte of the file: all chunks against both digests, and the padding; return the number of chunks.

        Nothing is kept, so that the memory needed is a few chunks. Of a chunk whose codec is not known, what is stored
        is compared with its checksum.

        Raises
        ------
        IntegrityError
            The file is damaged.
        UnsupportedVersionError
            It is not, as far as it could be checked: some chunks are written with codecs that are not known.
        """
        self.check_rest()
        unknown: dict[str, list[int]] = {}
        for entry in self.layout.entries:
            dtype = np.dtype(STORABLE[entry.dtype])
            if numbers := [number for number in np.unique(entry.chunks["codec"]).tolist() if not is_known(number)]:
                unknown[entry.name] = numbers

            def check(index: int, offset: int, entry: layout.Entry = entry, dtype: np.dtype[Any] = dtype) -> None:
                if is_known(int(entry.chunks["codec"][index])):
                    buffer = np.empty(entry.raw_length(index), np.uint8)
                    self._fill(entry, index, offset, buffer.data, "full")
                    if look is not None and self.entries.get(entry.name) is entry:  # a skipped one may have the name
                        look(entry.name, buffer.view(dtype))
                else:
                    stored = self.source.read(offset, int(entry.chunks["stored"][index]))
                    self._check_stored(entry, index, offset, memoryview(stored))
                if progress is not None:
                    progress(entry.raw_length(index))

            self._on_all_chunks(entry, check)
        if unknown:
            raise self._not_checked(unknown)
        return sum(len(entry.chunks) for entry in self.layout.entries)

    def check_rest(self) -> None:
        """Check that the bytes between entries are zero, so that no byte of the file is without a meaning."""
        end = layout.HEADER_BYTES
        for entry in self.layout.entries:
            if any(self.source.read(end, entry.offset - end)):
                raise self._damaged(f"the padding before its array {entry.name!r} is not zero")
            end = entry.offset + entry.stored_bytes

    def _on_all_chunks(self, entry: layout.Entry, work: Callable[[int, int], None]) -> None:
        """Call `work(index, offset)` for every chunk, on all cores when there are many."""
        offsets = entry.chunk_offsets().tolist()
        for_all_parts(lambda index: work(index, offsets[index]), len(offsets))

    def _chunk(self, entry: layout.Entry, index: int, offset: int) -> AnyArray:
        """Return the raw bytes of a chunk, remembering the last: neighbours are often asked for one after another."""
        key = (entry.name, index)
        with self._lock:
            if self._last is not None and self._last[0] == key:
                return self._last[1]
        raw = np.empty(entry.raw_length(index), np.uint8)
        self._fill(entry, index, offset, raw.data, "fast")
        with self._lock:
            self._last = (key, raw)
        return raw

    def _fill(self, entry: layout.Entry, index: int, offset: int, raw: memoryview, verify: Verify) -> None:
        """Read, check and decode one chunk into `raw`. The checksum comes first: no decoder sees damaged bytes."""
        codec, stored_length = self._codec(entry, index), int(entry.chunks["stored"][index])
        direct = codec is NONE and stored_length == len(raw)
        stored = raw if direct else memoryview(bytearray(stored_length))
        self.source.read_into(stored, offset)
        self._check_stored(entry, index, offset, stored)
        if not direct:
            try:
                raw[:] = codec.decode(stored, len(raw))
            except IntegrityError as error:
                raise error.at(self.source.name) from None
        if verify == "full":
            self._check_raw(entry, index, raw)

    def _codec(self, entry: layout.Entry, index: int) -> Codec:
        try:
            return codec_with_id(int(entry.chunks["codec"][index]))
        except UnsupportedVersionError as error:
            raise UnsupportedVersionError(
                f"its array {entry.name!r} cannot be read: {error.message}",
                path=self.source.name,
                next_step=error.next_step,
            ) from None

    def _not_checked(self, unknown: dict[str, list[int]]) -> UnsupportedVersionError:
        names = ", ".join(repr(name) for name in list(unknown)[:_LISTED])
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        numbers = ", ".join(map(str, sorted({number for each in unknown.values() for number in each})))
        return UnsupportedVersionError(
            f"{len(unknown)} of its arrays could not be checked: {names}{more}. They have chunks written with codec "
            f"{numbers}, which this release does not know; what could be checked is whole",
            path=self.source.name,
            next_step=UPGRADE,
        )

    def _check_stored(self, entry: layout.Entry, index: int, offset: int, stored: memoryview) -> None:
        """Compare the stored bytes of a chunk with their checksum."""
        if checksum(stored) != int(entry.chunks["check"][index]):
            raise self._damaged(
                f"its array {entry.name!r} is damaged in chunk {index}: bytes {offset} to "
                f"{offset + len(stored) - 1} of the file do not match their checksum"
            )

    def _check_raw(self, entry: layout.Entry, index: int, raw: memoryview) -> None:
        """Compare the raw bytes of a chunk with their SHA-256."""
        if hashlib.sha256(raw).digest() != entry.chunks["digest"][index].tobytes():
            raise self._damaged(f"its array {entry.name!r} does not match its SHA-256 in chunk {index}")

    def _read_document(self, entry: layout.Entry) -> tuple[dict[str, Any], dict[str, Any], Forms]:
        if entry.nbytes > MAX_DOCUMENT_BYTES or entry.dtype != "u8" or len(entry.shape) != 1:
            raise self._damaged("its document is past the limits of the format")
        if entry.stored_bytes < entry.nbytes > layout.MAX_PACKED_DOCUMENT_BYTES:
            raise UnsafeError(
                f"its document is packed and has {entry.nbytes} bytes, more than the limit",
                path=self.source.name,
                next_step="do not trust this file: no release writes one like it",
            )
        raw = bytearray(entry.nbytes)
        for index, offset in enumerate(entry.chunk_offsets().tolist()):
            part = memoryview(raw)[index * CHUNK_BYTES : index * CHUNK_BYTES + entry.raw_length(index)]
            self._fill(entry, index, offset, part, "full")
        try:
            with well_formed(self.source.name):
                document, record, packed = parts_of_document(raw, self.source.size)
                forms = Forms.from_json(packed, self.entries)
                paths = forms.stored_paths(document)
        except (IntegrityError, UnsafeError) as error:
            raise error.at(self.source.name) from error.__cause__
        if paths != set(self.entries):
            raise self._damaged("its document and its table name different arrays")
        return document, record, forms

    def _damaged(self, what: str) -> IntegrityError:
        return damaged(what, self.source.name)
