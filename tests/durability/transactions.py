"""Transactions that tests interrupt: of a file that states its length in its first bytes, and of an HDF5 store."""

import errno
import os
import random

import h5py
import numpy as np
import pytest

from quantum_memory.durability import atomic, files
from quantum_memory.durability.redo_log import find_log
from quantum_memory.durability.transaction import TransactionFile
from quantum_memory.errors import IntegrityError, StorageError

HEAD = 8


def stated(head):
    """The file of these tests states its length in its first eight bytes."""
    length = int.from_bytes(head, "little")
    if len(head) < HEAD or length < HEAD:
        raise IntegrityError("no length")
    return length


def opened(path, *, write=True, **options):
    return TransactionFile(path, write=write, committed_length=stated, head_bytes=HEAD, **options)


def commit(file):
    file.write_at(file.size.to_bytes(HEAD, "little"), 0)
    file.commit()


def content(path):
    with opened(path, write=False) as file:
        return file.read(0, file.size)


def with_length(body):
    return (len(body) + HEAD).to_bytes(HEAD, "little") + body


def make(path, body):
    with opened(path, create=True) as file:
        file.write_at(with_length(body), 0)
    return with_length(body)


def random_bytes(seed, length):
    return random.Random(seed).randbytes(length)


OLD = with_length(random_bytes(1, 30_000))


def new_content(appended):
    now = bytearray(OLD)
    for at in (3, 513, 4090, 12_288, 29_990):
        now[HEAD + at : HEAD + at + 20] = b"n" * 20
    now += random_bytes(2, appended)
    now[:HEAD] = len(now).to_bytes(HEAD, "little")
    return bytes(now)


SHORTER = with_length(b"s" * 5000)
NEWS = {"short": new_content(9000), "long": new_content(1_100_000), "equal": new_content(0), "shorter": SHORTER}


def change(file, new):
    """Make what is there `new`, in pieces."""
    for start in range(HEAD, len(new), 4000):
        piece = new[start : start + 4000]
        if start >= file.size or file.read(start, min(len(piece), file.size - start)) != piece:
            file.write_at(piece, start)
    file.truncate(len(new))
    commit(file)


def plain(path, data):
    path.write_bytes(data)
    atomic.forget_sweeps()


def appended_log(path, new):
    """A file whose transaction was committed, and not one page of it is in its place."""

    class NoApply(files.RealFiles):
        committed = False

        def fsync(self, fd):
            super().fsync(fd)
            NoApply.committed = find_log(self, fd, os.fstat(fd).st_size) is not None

        def write_at(self, fd, data, offset):
            if self.committed:
                raise OSError(errno.EIO, "no")
            return super().write_at(fd, data, offset)

    plain(path, OLD)
    with files.using(NoApply()), pytest.raises(StorageError, match="finish a commit"), opened(path) as file:
        change(file, new)
    raw = path.read_bytes()
    assert raw[: len(OLD)] == OLD
    assert len(raw) > len(new)
    return raw


def hdf5_length(head):
    if len(head) < 48 or not head.startswith(b"\x89HDF"):
        raise IntegrityError("no HDF5 file")
    return int.from_bytes(head[28:36], "little")


def store(path, **options):
    return TransactionFile(path, committed_length=hdf5_length, **options)


def opened_store(file):
    return h5py.File(file, "r+" if file.size else "w", libver="v110")


def append_group(path, number):
    with store(path, write=True, create=True) as file, opened_store(file) as root:
        root.attrs["count"] = number + 1
        group = root.create_group(f"states/{number:03d}", track_order=False)
        group["values"] = np.full(100 + number * 40, number)
        group.create_dataset("more", data=np.arange(number + 1.0), chunks=True, compression="gzip")
        index = root.require_dataset("index", (0,), "i8", maxshape=(None,), chunks=(8,)) if not number else None
        index = root["index"] if index is None else index
        index.resize(number + 1, axis=0)
        index[number] = number
        if number % 5 == 4:
            del root[f"states/{number - 2:03d}"]
        if number % 3 == 2:
            root["states/000/values"][:] = number


def groups(path):
    """Return how many transactions the store has, all of which are read in full; 0 when it is not there."""
    if not path.exists():
        return 0
    with store(path, write=False) as file, h5py.File(file, "r") as root:
        count = int(root.attrs["count"])
        assert list(root["index"][:]) == list(range(count))
        deleted = {number - 2 for number in range(4, count, 5)}
        assert sorted(root["states"]) == [f"{number:03d}" for number in range(count) if number not in deleted]
        last = max((number for number in range(2, count, 3)), default=0)
        for number in set(range(count)) - deleted:
            group = root[f"states/{number:03d}"]
            assert (group["values"][:] == (number or last)).all()
            assert len(group["values"]) == 100 + number * 40
            assert list(group["more"][:]) == list(range(number + 1))
    return count
