"""Inner products and partial traces of amplitudes that are elsewhere, in pieces, by whoever is there to do the work.

A task reads what it works on itself, a chunk or two ahead of what it computes, and returns a few numbers: no amplitudes
travel. Numbers are multiplied in double precision in blocks that stay in the cache of a core, and blocks are added
without rounding (`math.fsum`), so that a fidelity of amplitudes in single precision is good to 1e-13: products of whole
arrays in single precision are wrong by 1e-3, since their norms drift.

Any `concurrent.futures.Executor` does the work; a client of Dask is taken as one. Tasks change nothing, so that one may
be repeated.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from quantum_memory.errors import StorageError
from quantum_memory.state.sites import BLOCK, double
from quantum_memory.state.windows import carries

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from quantum_memory.state.arrays import Windows
    from quantum_memory.state.sites import Array

T = TypeVar("T")

BLOCK_BITS = 13
"""Amplitudes are multiplied 2**13 at a time. OpenBLAS has threads share what is longer than 10,000, which takes longer
than to multiply it, and a hundred times as long where other processes keep the cores busy."""

_TASKS = 64
"""Tasks that a piece of work is cut into, where there is so much of it, and nobody knows how many workers there are."""

_TASKS_EACH, _LEAST = 8, 4
"""Tasks for each worker, so that one who is slow gets fewer of them, and chunks of a task: all but the first of these
are read while something is computed."""

AHEAD = 2
"""Chunks that are on their way to a task."""

CARRIED = 8
"""Tasks that are handed out at once, where they carry what they work on."""

_TOGETHER = 4
"""Chunks that a task holds at once."""


class Products(NamedTuple):
    """Inner products of two vectors: ``<a|b>``, ``<a|a>`` and ``<b|b>``."""

    ab: complex
    aa: float
    bb: float


def products(a: Windows, b: Windows, executor: Any = None, *, step: int) -> Products:
    """Return the inner products of two vectors of the same length.

    Parameters
    ----------
    executor
        Who does the work; None: this thread.
    step
        Items that are read at once.
    """
    cut = ranges(a.shape[0], step, _workers(executor, a, b))
    tasks = ((part_of(a, *one), part_of(b, *one), step, *one) for one in cut)
    sums = list(shared_out(_products, tasks, executor, most=_most(a, b)))
    re, im, aa, bb = (_sum(column) for column in zip(*sums, strict=True))
    return Products(complex(re, im), aa, bb)


def squared_norm(a: Windows, executor: Any = None, *, step: int) -> float:
    """Return ``<a|a>``; see `products`."""
    tasks = ((part_of(a, *one), step, *one) for one in ranges(a.shape[0], step, _workers(executor, a)))
    return math.fsum(shared_out(_squares, tasks, executor, most=_most(a)))


def reduced(a: Windows, bits: Sequence[int], executor: Any = None, *, step: int) -> Array:
    """Return the partial trace over all qubits but some, shape (2**k, 2**k), in double precision.

    Parameters
    ----------
    bits
        Which bit of an index belongs to each of the k qubits; the first is the most significant digit of rows and
        columns.
    step
        Items that are read at once, a power of two.
    """
    outer = [bit for bit in bits if 1 << bit >= step]
    free = a.shape[0] // step >> len(outer)
    each = share(free, _workers(executor, a))
    tasks = ((a, tuple(bits), step, low, min(low + each, free)) for low in range(0, free, each))
    total = np.zeros((1 << len(bits),) * 2, double(a.dtype))
    for one in shared_out(_traced, tasks, executor):
        total += one
    return total


def shared_out(
    work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], executor: Any, *, most: int | None = None
) -> Iterator[Any]:
    """Yield what `work(*task)` returns for every task, in their order.

    Parameters
    ----------
    executor
        An executor, or a client of Dask; None: this thread. It is not closed.
    most
        How many tasks are handed out before the first has ended; by default all. For tasks that carry what they work
        on, of which there would be as many copies.

    Raises
    ------
    StorageError
        A process of the executor has died, and it cannot go on.
    """
    if executor is None:
        yield from (work(*task) for task in tasks)
        return
    pool = as_executor(executor)
    waiting = iter(tasks)
    running: deque[Future[Any]] = deque()
    try:
        running.extend(pool.submit(work, *task) for task in itertools.islice(waiting, most))
        while running:
            try:
                done = running[0].result()
            except BrokenExecutor as error:
                raise StorageError(
                    f"a process that did some of the work has died: {error}",
                    next_step="see why (memory?), and do it again with another executor; nothing was written",
                ) from error
            yield done
            running.popleft()
            running.extend(pool.submit(work, *task) for task in itertools.islice(waiting, 1))
    finally:
        for future in running:
            future.cancel()


def as_executor(executor: Any) -> Executor:
    """Return an executor as it is, and of a client of Dask one that repeats what a lost worker has not finished."""
    if hasattr(executor, "get_executor"):
        made: Executor = executor.get_executor(pure=False, retries=2)
        return made
    given: Executor = executor
    return given


def _most(*arrays: Windows) -> int | None:
    """Return how many tasks are handed out at once: few where they carry items."""
    return CARRIED if carries(*arrays) else None


def part_of(a: Windows, start: int, stop: int) -> Windows:
    """Return what a task is given of a vector: of one in memory only the items that it works on."""
    part = getattr(a, "part", None)
    made: Windows = a if part is None else part(start, stop)
    return made


def workers_of(executor: Any) -> int | None:
    """Return how many workers an executor has, as far as it says so; no executor is one."""
    if executor is None:
        return 1
    if hasattr(executor, "nthreads"):  # a client of Dask
        return sum(executor.nthreads().values()) or None
    said = getattr(executor, "num_workers", getattr(executor, "_max_workers", None))
    return said if isinstance(said, int) and said > 0 else None


def _workers(executor: Any, *arrays: Windows) -> int | None:
    """Return among how many workers the work is shared; tasks that carry what they work on are many, and small."""
    return workers_of(executor) if _most(*arrays) is None else None


def share(chunks: int, workers: int | None) -> int:
    """Return how many chunks a task takes.

    Parameters
    ----------
    workers
        How many there are; None: nobody knows.
    """
    if workers is None:
        return max(1, -(-chunks // _TASKS))
    return max(1, min(_LEAST, chunks // workers), -(-chunks // (_TASKS_EACH * workers)))


def ranges(size: int, step: int, workers: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield ranges of items, each of whole steps, as many as `share` says."""
    each = share(-(-size // step), workers) * step
    return ((low, min(low + each, size)) for low in range(0, size, each))


def read_runs(
    arrays: Sequence[Windows], runs: Iterable[tuple[int, int]], most: int = AHEAD
) -> Generator[Array, None, None]:
    """Yield each run of items of each of several arrays, which are to be forgotten before the next is asked for.

    They are read ahead where one array waits for its own, and all say whether they do. An array of Dask does not: it is
    computed by the thread that does a task, and by no other one.

    Parameters
    ----------
    most
        Runs that are read ahead.
    """
    waits = {getattr(array, "waits", None) for array in arrays}
    reads = (partial(array.items, *run) for run in runs for array in arrays)
    return _ahead(reads, most) if True in waits and None not in waits else (read() for read in reads)


def _ahead(reads: Iterable[Callable[[], T]], most: int) -> Generator[T, None, None]:
    """Yield what is read, in order; the next ones are read meanwhile, in threads."""
    todo = iter(reads)
    running: deque[Future[T]] = deque()

    def begin(number: int) -> None:
        running.extend(pool.submit(read) for read in itertools.islice(todo, number))

    def first() -> T:
        found = running.popleft().result()
        begin(1)
        return found

    with ThreadPoolExecutor(most) as pool:
        begin(most)
        try:
            while running:
                yield first()
        finally:
            for future in running:
                future.cancel()


def _blocks(a: Array) -> Iterator[Array]:
    kind = double(a.dtype)
    for start in range(0, len(a), 1 << BLOCK_BITS):
        yield a[start : start + (1 << BLOCK_BITS)].astype(kind, copy=False)


def _products(a: Windows, b: Windows, step: int, start: int, stop: int) -> tuple[float, float, float, float]:
    re, im, aa, bb = [], [], [], []
    with closing(read_runs((a, b), runs_of(start, stop, _piece(step, a, b)))) as found:
        for one in found:
            other = next(found)
            for left, right in zip(_blocks(one), _blocks(other), strict=True):
                both = complex(np.vdot(left, right))
                re.append(both.real)
                im.append(both.imag)
                aa.append(float(np.vdot(left, left).real))
                bb.append(float(np.vdot(right, right).real))
            del one, other, left, right
    return _sum(re), _sum(im), _sum(aa), _sum(bb)


def _squares(a: Windows, step: int, start: int, stop: int) -> float:
    squares: list[float] = []
    with closing(read_runs((a,), runs_of(start, stop, _piece(step, a)))) as found:
        for one in found:
            squares.extend(float(np.vdot(block, block).real) for block in _blocks(one))
            del one
    return _sum(squares)


def runs_of(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of `step` items that some items are read in."""
    return ((low, min(low + step, stop)) for low in range(start, stop, step))


def _piece(step: int, *arrays: Windows) -> int:
    """Return how many items a task reads at once: a step, or less where all say that this is as well."""
    return min(step, max(getattr(array, "piece", None) or step for array in arrays))


def _sum(numbers: Sequence[float]) -> float:
    """Return a sum without rounding; of what is not finite, or not any more, as numbers of Python are added."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return sum(numbers)


def _traced(a: Windows, bits: tuple[int, ...], step: int, start: int, stop: int) -> Array:
    """Return what the chunks ``start:stop``, counted without the bits that are kept, add to a partial trace."""
    width = step.bit_length() - 1
    outer = [bit - width for bit in bits if bit >= width]
    size = 1 << len(bits)
    total = np.zeros((size, size), double(a.dtype))
    settings = list(itertools.product((0, 1), repeat=len(outer)))
    for rest in range(start, stop):
        base = _spread(rest, sorted(outer))
        places = {
            setting: base + sum(one << bit for one, bit in zip(setting, outer, strict=True)) for setting in settings
        }
        for group in _groups(settings):
            runs = ((places[setting] * step, (places[setting] + 1) * step) for setting in group)
            chunks = dict(zip(group, read_runs((a,), runs), strict=True))
            _add(total, chunks, bits, width, diagonal=len(settings) <= _TOGETHER or len(group) == 1)
    return total


def _groups(settings: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Return which chunks are held together: all, or each one and each pair of two."""
    if len(settings) <= _TOGETHER:
        return [tuple(settings)]
    return [(one,) for one in settings] + list(itertools.combinations(settings, 2))


def _add(
    total: Array, chunks: dict[tuple[int, ...], Array], bits: tuple[int, ...], width: int, *, diagonal: bool
) -> None:
    """Add the products of chunks that differ in nothing but bits that are kept.

    Parameters
    ----------
    chunks
        By the values of those of `bits` that are above `width`.
    diagonal
        Whether the products of a chunk with itself are wanted as well.
    """
    block = min(width, BLOCK_BITS)
    middle = [bit - block for bit in bits if block <= bit < width]
    inner_bits = [bit for bit in bits if bit < block]
    axes = [block - 1 - bit for bit in inner_bits]
    rest = [axis for axis in range(block) if axis not in axes]
    kinds = ["outer" if bit >= width else "middle" if bit >= block else "inner" for bit in bits]
    for free in range(1 << (width - block - len(middle))):
        base = _spread(free, sorted(middle))
        rows: dict[tuple[int, ...], Array] = {}
        for setting, chunk in chunks.items():
            for values in itertools.product((0, 1), repeat=len(middle)):
                place = base + _placed(values, middle)
                part = chunk[place << block : (place + 1) << block].astype(total.dtype, copy=False)
                matrix = part.reshape((2,) * block).transpose(axes + rest).reshape(1 << len(axes), -1)
                for index, digits in enumerate(itertools.product((0, 1), repeat=len(axes))):
                    taken = {"outer": iter(setting), "middle": iter(values), "inner": iter(digits)}
                    rows[tuple(next(taken[kind]) for kind in kinds)] = matrix[index]
        keys = list(rows)
        where = [int("".join(map(str, key)) or "0", 2) for key in keys]
        stacked = np.stack([rows[key] for key in keys])
        found = stacked @ stacked.conj().T
        if not diagonal:
            outer_of = [tuple(d for d, kind in zip(key, kinds, strict=True) if kind == "outer") for key in keys]
            same = np.array([[one == other for other in outer_of] for one in outer_of])
            found = np.where(same, 0, found)
        total[np.ix_(where, where)] += found


def _placed(values: tuple[int, ...], bits: list[int]) -> int:
    """Return the number that has these values at these bits."""
    return sum(value << bit for value, bit in zip(values, bits, strict=True))


def _spread(number: int, gaps: list[int]) -> int:
    """Return a number with a zero put in at each of some bits, in ascending order."""
    for gap in gaps:
        low = number & ((1 << gap) - 1)
        number = ((number >> gap) << (gap + 1)) | low
    return number


def vectors_step(*arrays: Any) -> int:
    """Return how many items of each of several vectors are read at once: whole chunks of all of them."""
    steps = [int(array.step) for array in arrays if hasattr(array, "step")]
    if not steps:
        return BLOCK
    step = math.lcm(*steps)
    return step if step <= 8 * max(steps) else max(steps)
