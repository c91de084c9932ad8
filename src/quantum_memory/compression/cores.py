"""Work on all cores whose results are taken in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from quantum_memory.state.arrays import worker_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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
