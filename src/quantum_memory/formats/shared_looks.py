"""Look at all chunks of a version with the help of others, and at what is unpacked of them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from quantum_memory.formats.form_nodes import ChecksumsInOrder
from quantum_memory.formats.form_reader import FormReader, StoredRow
from quantum_memory.formats.stored_amplitudes import reader_of
from quantum_memory.formats.verify import Seen, look_at
from quantum_memory.state.arrays import CHUNK_BYTES, chunk_count
from quantum_memory.state.products import AHEAD, share, shared_out, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Progress


def shared_look(reader: Reader, executor: Any, progress: Progress | None) -> Seen:
    """Let an executor look at all chunks of a version, and at what is unpacked of them; see `verify.look_at`."""
    stored: Any = reader.inner if isinstance(reader, FormReader) else reader
    if not hasattr(stored, "check_chunks"):
        return look_at(lambda look: reader.check_everything(progress, look))
    tasks = []
    for path in stored.entries:
        tasks += [(stored.address, path, *one) for one in _shares(stored.facts(path)["chunks"], executor)]
        stored.rows(path)  # which are what identifies the array
    total = Seen(sum(-(-entry.nbytes // CHUNK_BYTES) for entry in stored.entries.values()), Counter(), [])
    for one, nbytes in shared_out(_looked_at, tasks, executor):
        _add(total, one, progress, nbytes)
    if isinstance(reader, FormReader):
        for path in reader.forms.nodes:
            _look_at_form(reader, path, total, executor, progress)
    return total


def _look_at_form(reader: FormReader, path: str, total: Seen, executor: Any, progress: Progress | None) -> None:
    """Let an executor look at what is unpacked of an array; where no part can be had without the rest, look here."""
    node, nbytes = reader.forms.nodes[path], reader.entries[path].nbytes
    left = max(0, nbytes - sum(reader.inner.entries[part].nbytes for part in node.parts.values()))  # as it is told
    if not reader.in_windows(path) or node.by_parts:
        _add(total, look_at(partial(_looked_here, reader, path)), progress, left)
        return
    reader.check_size(path)
    tasks = [(reader.address, path, *one) for one in _shares(chunk_count(nbytes), executor)]
    sums = ChecksumsInOrder()
    for one, parts in shared_out(_unpacked, tasks, executor):
        sums.extend(parts)
        _add(total, one, progress, parts.nbytes * left // nbytes)
    reader.compare(path, sums)


def _add(total: Seen, one: Seen, progress: Progress | None, nbytes: int) -> None:
    total.odd.update(one.odd)
    total.squares.extend(one.squares)
    if progress is not None:
        progress(nbytes)


def _shares(chunks: int, executor: Any) -> Iterator[tuple[int, int]]:
    """Yield which chunks each task has."""
    each = share(chunks, workers_of(executor))
    return ((first, min(first + each, chunks)) for first in range(0, max(1, chunks), each))


def _looked_at(address: str, path: str, first: int, last: int) -> tuple[Seen, int]:
    reader: Any = reader_of(address)
    stored: Any = reader.inner if isinstance(reader, FormReader) else reader
    is_part = path not in reader.entries
    done: list[int] = []

    def check(look: Callable[[str, Any], object]) -> int:
        stored.check_chunks(path, first, last, done.append, None if is_part else look, most=AHEAD)
        return last - first

    return look_at(check), sum(done)


def _looked_here(reader: FormReader, path: str, look: Callable[[str, Any], object]) -> int:
    for items in reader.unpacked(path):
        look(path, items)
    return 0


def _unpacked(address: str, path: str, first: int, last: int) -> tuple[Seen, ChecksumsInOrder]:
    """Look at chunks of an array in a form, each of which is unpacked for it."""
    reader = reader_of(address)
    row = StoredRow(reader, path)
    step = CHUNK_BYTES // row.dtype.itemsize
    sums = ChecksumsInOrder()

    def check(look: Callable[[str, Any], object]) -> int:
        for index in range(first, last):
            items = row[index * step : (index + 1) * step]
            sums.add(items)
            look(path, items)
        return last - first

    return look_at(check), sums
