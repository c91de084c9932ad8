"""Arrays in a form are read in windows, in any order and by several threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.compression.forms import views
from quantum_memory.compression.forms.views import Recent, View, WholeView, scan
from quantum_memory.errors import IntegrityError
from quantum_memory.state.arrays import CHUNK_BYTES, chunk_items


class Counting(View):
    """The numbers 0, 1, 2 .., in windows that begin where they are said to; notes which of them were computed."""

    def __init__(self, size: int, starts: Any, dtype: Any = np.float64) -> None:
        super().__init__(np.dtype(dtype), size, starts)
        self.computed: list[int] = []

    def window(self, index: int, out: Any) -> None:
        first, last = self._bounds(index)
        assert len(out) == last - first
        self.computed.append(index)
        out[...] = np.arange(first, last)


@given(data=st.data())
def test_any_stretch_is_read(data: st.DataObject) -> None:
    inner = data.draw(st.lists(st.integers(1, 99), unique=True, max_size=9))
    view = Counting(100, [0, *sorted(inner)])
    start = data.draw(st.integers(0, 100))
    out = np.full(data.draw(st.integers(0, 100 - start)), -1.0)
    view.read(start, out)
    assert out.tolist() == list(range(start, start + len(out)))
    out = np.empty(100)
    view.fill(out)
    assert out.tolist() == list(range(100))


def test_only_the_windows_that_are_touched_are_computed_and_once() -> None:
    view = Counting(100, range(0, 100, 10))
    for start in range(23, 43, 4):
        view.read(start, np.empty(4))
    assert sorted(view.computed) == [2, 3, 4]


def test_a_state_of_any_size_is_looked_at() -> None:
    view = Counting(1 << 61, range(0, 1 << 61, 1 << 10), np.int64)
    out = np.empty(3, np.int64)
    view.read((1 << 61) - 3, out)
    assert out.tolist() == [(1 << 61) - 3, (1 << 61) - 2, (1 << 61) - 1]


@pytest.mark.parametrize("step", [None, CHUNK_BYTES // 8, CHUNK_BYTES // 4, 100_000])
def test_a_scan_shows_every_chunk_once_and_all_rows_in_order(step: int | None) -> None:
    size = 5 * CHUNK_BYTES // 8 - 77
    starts = [0, 5, 300_000, 300_001] if step is None else range(0, size, step)
    seen: dict[int, Any] = {}
    done = []
    out = np.empty(size)
    for start, row in scan(Counting(size, starts), lambda index, items: seen.setdefault(index, items.copy()), out):
        done.append((start, len(row)))
        assert np.array_equal(row, np.arange(start, start + len(row)))
    assert [start for start, _ in done] == np.cumsum([0, *(length for _, length in done)])[:-1].tolist()
    assert np.array_equal(out, np.arange(size))
    assert sorted(seen) == list(range(5))
    assert all(np.array_equal(items, chunk_items(out, index)) for index, items in seen.items())


def test_threads_that_want_the_same_make_it_once() -> None:
    made = []
    entered = threading.Barrier(4)

    def make(index: int) -> int:
        made.append(index)
        threading.Event().wait(0.05)
        return 10 * index

    recent = Recent(make)

    def ask(_: int) -> int:
        entered.wait(10)
        return recent[3]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [30] * 4
    assert made == [3]


def test_what_could_not_be_made_is_tried_again() -> None:
    failures = [IntegrityError("damaged")]

    def make(index: int) -> int:
        if failures:
            raise failures.pop()
        return index

    recent = Recent(make)
    with pytest.raises(IntegrityError):
        recent[1]
    assert recent[1] == 1


def test_what_was_made_long_ago_is_forgotten() -> None:
    made: list[int] = []
    recent = Recent(lambda index: made.append(index) or index)
    for index in [*range(100), 99, 0]:
        assert recent[index] == index
    assert made == [*range(100), 0]


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_whole_is_computed_at_the_first_look_and_not_when_it_is_filled(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "IN_MEMORY_BYTES", 1 << 30 if in_memory else 0)
    filled = []

    def fill(out: Any) -> None:
        filled.append(out.shape)
        out[...] = np.arange(out.size).reshape(out.shape)

    view = WholeView(np.dtype(np.float64), (600, 700), fill)
    assert filled == []
    out = np.empty((600, 700))
    view.fill(out)
    assert out[-1, -1] == 600 * 700 - 1
    for start in (0, 131_070, 419_997):
        view.read(start, stretch := np.empty(3))
        assert stretch.tolist() == [start, start + 1, start + 2]
    assert filled == [(600, 700)] * 2
