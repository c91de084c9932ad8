"""A few parts of files on their way at the same time, however many cores there are: so the memory is bounded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 4
"""Parts that are worked on at the same time."""


def in_flight(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what `work` makes of each item, in order; a few are worked on at the same time, whatever the cores are."""
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT, "transfer") as pool:
        try:
            for item in items:
                if len(ahead) >= IN_FLIGHT:
                    yield ahead.popleft().result()
                ahead.append(pool.submit(work, item))
            while ahead:
                yield ahead.popleft().result()
        finally:
            for one in ahead:
                one.cancel()
