"""Processes that do the work of a verb."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Yield the processes that work, for a block; None where one is enough, which is this."""
    if jobs == 1:
        yield None
        return
    from quantum_memory.lifecycle.migration.pool import worker_pool

    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # glibc keeps what each thread has freed, which adds up in many
    with worker_pool(jobs) as pool:
        yield pool
