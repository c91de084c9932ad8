"""Memory for chunks that is used again."""

import os
import threading

import pytest

from quantum_memory.compression.codecs import Zstd
from quantum_memory.lifecycle.repository.buffers import Buffers


@pytest.mark.parametrize("length", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 20, (1 << 20) + 4096])
def test_what_is_given_back_is_taken_again(length):
    buffers = Buffers()
    first = buffers.take(length)
    assert len(first) == length
    buffers.give(first[: length // 2])  # what is given back may be a part of it, and stands for the whole
    again = buffers.take(length)
    assert again.obj is first.obj
    assert len(again) == length
    assert buffers.take(length).obj is not first.obj


def test_others_of_the_same_kind_fit():
    buffers = Buffers()
    first = buffers.take(70_000)
    buffers.give(first)
    assert buffers.take(1 << 17).obj is first.obj


def test_bytes_are_nobodys():
    buffers = Buffers()
    buffers.give(bytes(1 << 16))
    assert len(buffers.take(1 << 16)) == 1 << 16


def test_no_two_threads_get_the_same_memory():
    buffers, wrong = Buffers(), []

    def work(number: int) -> None:
        for _ in range(300):
            mine = buffers.take(64)
            mine[:] = bytes([number]) * 64
            os.sched_yield()
            if bytes(mine) != bytes([number]) * 64:
                wrong.append(number)
            buffers.give(mine)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


@pytest.mark.parametrize("level", [1, 3, 9])
def test_an_encoder_that_is_kept_gives_the_same_frames(level):
    inputs = [b"", os.urandom(5000), b"abc" * 70_000, os.urandom(5000)[:17] * 900]
    once = [bytes(Zstd(level).encode(data)) for data in inputs]
    fresh: list[bytes] = []
    thread = threading.Thread(target=lambda: fresh.extend(bytes(Zstd(level).encode(one)) for one in reversed(inputs)))
    thread.start()
    thread.join()
    assert once == fresh[::-1]
    assert [bytes(Zstd().decode(stored, len(data))) for stored, data in zip(once, inputs, strict=True)] == inputs
