"""A save of which an executor does the work: its tasks write the amplitudes, each some of them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.cloud.transaction import Transaction
from quantum_memory.cloud.zarr_format import already_there
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.reader import AMPLITUDES
from quantum_memory.state.arrays import is_elsewhere
from quantum_memory.state.products import CARRIED, part_of, ranges, read_runs, runs_of, shared_out, workers_of
from quantum_memory.state.windows import DaskRow, InMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.cloud.parts import Part
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.registry import Saved, SaveOptions
    from quantum_memory.formats.urls import URL
    from quantum_memory.state.arrays import AnyArray, Windows


def saved_by(executor: Any, url: URL, memory: Prepared, options: SaveOptions) -> Saved:
    """Save a memory whose state vector an executor writes; see `quantum_memory.save`.

    Raises
    ------
    InvalidStateError
        It holds no state vector.
    """
    array: Any = memory.arrays.get(AMPLITUDES)
    if array is None:
        raise InvalidStateError(
            "an executor writes the amplitudes of a state vector, and there is none",
            path=str(url),
            next_step="leave the executor out",
        )
    shards: Windows = array if is_elsewhere(array) else InMemory(array)
    with Transaction(url, memory, durable=options.durable) as tx:
        if tx.follows and not options.overwrite:
            raise already_there(url)
        for part in _written_parts(executor, tx, shards):
            tx.merge(part)
            if options.progress is not None:
                options.progress(part.nbytes)
    assert tx.saved is not None  # noqa: S101 - the block has ended
    return tx.saved


def _written_parts(executor: Any, tx: Transaction, shards: Windows) -> Iterator[Part]:
    if isinstance(shards, DaskRow) and hasattr(executor, "get_executor"):
        # Its blocks go from where they are to who writes them, and past nobody else.
        from dask.delayed import delayed  # noqa: PLC0415 - who has a client of it has it

        write = delayed(_write_block, pure=False)
        blocks = shards.blocks(tx.chunk)
        futures = executor.compute([write(tx.fork(), k * tx.chunk, block) for k, block in enumerate(blocks)])
        yield from (future.result() for future in futures)
        return
    carried = isinstance(shards, InMemory)
    cut = ranges(tx.size, tx.chunk, None if carried else workers_of(executor))
    tasks = ((tx.fork(), part_of(shards, low, high), low, high) for low, high in cut)
    yield from shared_out(_write_run, tasks, executor, most=CARRIED if carried else None)


def _write_run(part: Part, shards: Windows, start: int, stop: int) -> Part:
    """Write a run of amplitudes, one chunk after the other, while the next is read, and return the part."""
    with closing(read_runs((shards,), runs_of(start, stop, part.chunk), 1)) as found:
        for low in range(start, stop, part.chunk):
            part.write(low, next(found))
    return part


def _write_block(part: Part, start: int, amplitudes: AnyArray) -> Part:
    part.write(start, np.asarray(amplitudes))
    return part
