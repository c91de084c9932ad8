"""Processes that make new files."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """Return `jobs` processes; each ends when this one does, however that ends.

    They are started afresh and not forked: a forked one would hold the lock of the migration as long as it lives.
    """
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _watch)


def _watch() -> None:
    """End this process when the one that started it has ended; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
