"""Work on all cores: with results that are taken in order, or on parts of one thing in any order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from quantum_memory.state.arrays import worker_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PARTS_PER_TASK = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(
    work: Callable[[Item], Result], items: Iterable[Item], enter: Callable[[], object] | None = None
) -> Iterator[Result]:
    """Yield what `work` makes of each item, in order; a few more items than there are cores are worked on ahead.

    Parameters
    ----------
    enter
        Called first in every thread that works.
    """
    pending = iter(items)
    first = [item for _, item in zip(range(2), pending, strict=False)]
    if len(first) < 2:
        if enter is not None:
            enter()
        yield from map(work, first)
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(worker_count(), "compression", enter) as pool:
        try:
            ahead.extend(pool.submit(work, item) for item in first)
            for item in pending:
                ahead.append(pool.submit(work, item))
                if len(ahead) > worker_count() + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for one in ahead:
                one.cancel()


def for_all_parts(work: Callable[[int], object], count: int) -> None:
    """Call `work` with every number below `count`, in any order and from several threads when there are many."""

    def run(numbers: range) -> None:
        for number in numbers:
            work(number)

    if count <= 1:
        run(range(count))
        return
    tasks = [range(first, min(first + _PARTS_PER_TASK, count)) for first in range(0, count, _PARTS_PER_TASK)]
    with ThreadPoolExecutor(worker_count(), "parts") as pool:
        try:
            for _ in pool.map(run, tasks):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
