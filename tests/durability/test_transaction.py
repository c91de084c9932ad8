"""A file that is changed in place has the old content or the new, whatever happens at whatever instant."""

import errno
import itertools
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.durability import atomic, files
from quantum_memory.durability.overlay import Overlay
from quantum_memory.durability.redo_log import write_log
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)
from quantum_memory.testing.faults import FaultyFiles, PassingFiles, RecordingFiles, ShortFiles, in_child, killed_at

from .conftest import leftovers, names
from .transactions import (
    HEAD,
    NEWS,
    OLD,
    SHORTER,
    append_group,
    appended_log,
    change,
    commit,
    content,
    groups,
    make,
    opened,
    plain,
    random_bytes,
    store,
    with_length,
)

# What is written is what is read, before and after a commit


class Model:
    """The same file as a bytearray."""

    def __init__(self, path):
        self.file = opened(path, create=True)
        self.file.write_at(with_length(b""), 0)
        self.now = bytearray(with_length(b""))
        commit(self.file)
        self.path, self.committed = path, bytes(self.now)

    def write(self, offset, data):
        if data:
            self.now.extend(bytes(max(0, offset - len(self.now))))
            self.now[offset : offset + len(data)] = data
        self.file.seek(offset)
        assert self.file.write(data) == len(data)
        assert self.file.tell() == offset + len(data)

    def truncate(self, length):
        del self.now[length:]
        self.now.extend(bytes(length - len(self.now)))
        assert self.file.truncate(length) == length

    def read(self, offset, length):
        buffer = bytearray(b"x" * length)
        self.file.seek(offset)
        got = self.file.readinto(buffer)
        expected = bytes(self.now[offset : offset + length])
        assert got == len(expected)
        assert bytes(buffer) == expected + bytes(length - got)
        assert bytes(self.file.map(offset, got) if got else b"") == expected

    def commit(self):
        self.now[:HEAD] = len(self.now).to_bytes(HEAD, "little")
        commit(self.file)
        self.committed = bytes(self.now)
        assert self.path.read_bytes() == self.committed

    def abandon(self):
        self.file.abandon()
        self.now = bytearray(self.committed)

    def reopen(self, tidily):
        if tidily:
            self.file.close()
            assert self.path.read_bytes() == self.committed
        else:
            os.close(self.file._fd)  # as a process that died: what it appended stays
            self.file._fd = -1
        assert content(self.path) == self.committed
        self.file = opened(self.path)
        self.now = bytearray(self.committed)

    def check(self):
        assert self.file.size == len(self.now)
        assert self.file.read(0, len(self.now)) == bytes(self.now)


PLACES = st.one_of(st.integers(0, 40), st.integers(0, 20_000), st.sampled_from([4095, 4096, 4097, 8192]))
DATA = st.one_of(st.binary(max_size=40), st.builds(random_bytes, st.integers(), st.sampled_from([4096, 5000, 9000])))
STEPS = st.one_of(
    st.tuples(st.just("write"), PLACES, DATA),
    st.tuples(st.just("write"), PLACES, DATA),
    st.tuples(st.just("truncate"), PLACES.filter(lambda place: place >= HEAD)),
    st.tuples(st.just("read"), PLACES, st.integers(0, 10_000)),
    st.tuples(st.sampled_from(["commit", "commit", "abandon"])),
    st.tuples(st.just("reopen"), st.booleans()),
)


@settings(max_examples=300)
@given(steps=st.lists(STEPS, max_size=25), short=st.booleans())
def test_it_is_the_file_that_a_bytearray_is(tmp_path_factory, steps, short):
    path = tmp_path_factory.mktemp("model") / "file"
    with files.using(ShortFiles(1000) if short else files.RealFiles()):
        model = Model(path)
        for name, *arguments in steps:
            getattr(model, name)(*arguments)
            model.check()
        model.commit()
        model.file.close()
        assert content(path) == model.committed
    assert names(path.parent) == ["file"]


# One transaction that does everything, interrupted


@pytest.mark.parametrize("what", NEWS)
def test_a_transaction_keeps_the_rules_of_durable_writing(tmp_path, what):
    path = tmp_path / "file"
    plain(path, OLD)
    recording = RecordingFiles()
    with files.using(recording), opened(path) as file:
        change(file, NEWS[what])
    assert recording.violations() == []
    assert [call.name for call in recording.log].count("fsync") == (3 if what == "long" else 2)
    assert path.read_bytes() == NEWS[what]


@pytest.mark.parametrize("what", NEWS)
def test_without_durability_nothing_is_synced(tmp_path, what):
    path = tmp_path / "file"
    recording = RecordingFiles()
    with files.using(recording):
        with opened(path, create=True, durable=False) as file:
            file.write_at(OLD, 0)
        with opened(path, durable=False) as file:
            change(file, NEWS[what])
    assert not [call for call in recording.log if call.name == "fsync"]
    assert path.read_bytes() == NEWS[what]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("what", NEWS)
def test_a_transaction_that_fails_anywhere_leaves_old_or_new(tmp_path, what, error):
    path = tmp_path / "file"
    new, seen = NEWS[what], set()
    for k, sticky in ((k, sticky) for k in itertools.count() for sticky in (False, True)):
        plain(path, OLD)
        recording = RecordingFiles(FaultyFiles(k, error, sticky=sticky))
        problem = None
        with files.using(recording):
            try:
                with opened(path) as file:
                    change(file, new)
            except QuantumMemoryError as error_of_ours:
                problem = error_of_ours
        if problem is not None:
            assert isinstance(problem, (StorageError, ConflictError)), problem
            assert problem.path == str(path)
            assert problem.next_step
        failed = recording.inner.failed
        broken = recording.violations(acknowledged=False)
        assert not [line for line in broken if "was left there" not in line and "and left there" not in line]
        found = content(path)
        assert found in (OLD, new)
        assert names(tmp_path) == ["file"]
        if problem is None:
            assert found == new
        elif not sticky:
            assert found == (new if "finish a commit" in str(problem) else OLD)
        seen.add((problem is None, found == new))
        with opened(path) as file:  # it goes on working
            change(file, OLD + b"more")
        assert content(path) == with_length(OLD[HEAD:] + b"more")
        if not failed:
            break
    assert {(False, False), (True, True), (False, True)} <= seen


@pytest.mark.parametrize("what", NEWS)
def test_a_kill_at_every_call_leaves_old_or_new(tmp_path, what):
    path = tmp_path / "file"
    new, found = NEWS[what], []

    def work(dying):
        with files.using(dying), opened(path) as file:
            change(file, new)

    for k in itertools.count():
        plain(path, OLD)
        if not killed_at(k, work):
            break
        found.append(content(path))
        assert path.read_bytes()[: len(found[-1])] == found[-1]
    assert found == sorted(found, key=lambda version: version == new)  # first old, from some call on new
    assert set(found) == {OLD, new}
    assert path.read_bytes() == new


# Logs


def test_a_reader_finishes_a_committed_transaction(tmp_path):
    path = tmp_path / "file"
    appended_log(path, NEWS["short"])
    assert content(path) == NEWS["short"]
    assert path.read_bytes() == NEWS["short"]


@pytest.mark.parametrize("what", NEWS)
def test_readers_that_cannot_finish_it_read_as_if_it_were(tmp_path, what):
    path, new = tmp_path / "file", NEWS[what]
    raw = appended_log(path, new)

    class ReadOnly(files.RealFiles):
        def open(self, path, flags, mode=0o666):
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise OSError(errno.EROFS, "read only")
            return super().open(path, flags, mode)

    with files.using(ReadOnly()), opened(path, write=False) as one, opened(path, write=False) as other:
        for file in (one, other):
            assert file.size == len(new)
            assert file.read(0, len(new)) == new
            assert bytes(file.map(0, len(new))) == new
            for start in range(0, len(new) - 50, 4001):
                assert bytes(file.map(start, 50)) == file.read(start, 50) == new[start : start + 50]
    assert path.read_bytes() == raw


def test_a_log_that_is_damaged_anywhere_is_garbage(tmp_path):
    path, new = tmp_path / "file", NEWS["equal"]
    raw = appended_log(path, new)
    rng = random.Random(1)
    places = [*range(len(raw) - 64, len(raw)), *(rng.randrange(len(OLD), len(raw)) for _ in range(100))]
    for at in places:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert content(path) == OLD
    for length in [*range(len(raw) - 80, len(raw)), *range(len(OLD), len(raw), 997)]:
        path.write_bytes(raw[:length])
        assert content(path) == OLD
    path.write_bytes(raw + b"x")
    assert content(path) == OLD
    with opened(path):
        pass
    assert path.read_bytes() == OLD


def test_footers_that_cannot_be_are_no_logs(tmp_path):
    path = tmp_path / "file"
    big = 1 << 63
    for numbers in itertools.product([0, 8, 64, big], repeat=5):
        path.write_bytes(with_length(b"") + struct.pack("<8s5Q16s", b"QMREDO1\n", *numbers, b""))
        assert content(path) == with_length(b"")


def test_data_that_end_like_a_log_are_data(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    make(path, OLD[HEAD:])
    other.write_bytes(OLD)
    with other.open("r+b") as file:
        overlay = Overlay(
            len(OLD), lambda view, offset: view.__setitem__(slice(None), OLD[offset : offset + len(view)])
        )
        overlay.write(memoryview(b"X" * 100), HEAD)
        write_log(files.RealFiles(), file.fileno(), overlay, len(OLD), durable=False)
    forged = other.read_bytes()[len(OLD) :]
    with opened(path) as file:
        file.write_at(forged, len(OLD))
        commit(file)
    assert content(path) == with_length(OLD[HEAD:] + forged)
    with opened(path) as file:
        assert file.read(HEAD, 100) == OLD[HEAD : HEAD + 100]


def test_what_a_failed_write_left_behind_the_end_is_not_there_later(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])

    class Full(files.RealFiles):
        room = 1000

        def write_at(self, fd, data, offset):
            if not self.room:
                raise OSError(errno.ENOSPC, "full")
            written = super().write_at(fd, data[: self.room], offset)
            self.room -= written
            return written

    full = Full()
    with files.using(full), opened(path) as file:
        with pytest.raises(StorageError, match="full"):
            file.write_at(b"!" * 5000, len(OLD))
        file.abandon()
        full.room = 1 << 20
        file.set_length(len(OLD) + 2000)
        commit(file)
    assert content(path) == with_length(OLD[HEAD:] + bytes(2000))


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_somebody_else_replaced_is_not_replaced(tmp_path, there):
    path = tmp_path / "file"
    if there:
        make(path, OLD[HEAD:])
    with pytest.raises(ConflictError, match="meanwhile"), opened(path, replace=True) as slow:  # noqa: PT012
        with opened(path, replace=True) as quick:
            quick.write_at(SHORTER, 0)
        with opened(path) as writer:
            change(writer, with_length(b"acknowledged"))
        slow.write_at(OLD, 0)
    assert content(path) == with_length(b"acknowledged")
    assert names(tmp_path) == ["file"]


def test_a_log_goes_with_its_file(tmp_path):
    path, other = tmp_path / "file", tmp_path / "copy"
    raw = appended_log(path, NEWS["short"])
    other.write_bytes(raw)
    make(path.with_name("third"), b"another file")
    path.with_name("third").rename(path)
    assert content(path) == with_length(b"another file")
    assert content(other) == NEWS["short"]


# New files


def test_a_new_file_is_not_there_before_its_commit(tmp_path):
    path = tmp_path / "file"
    with opened(path, create=True) as file:
        assert (file.is_new, file.size) == (True, 0)
        file.write_at(OLD, 0)
        assert not path.exists()
        assert len(leftovers(tmp_path)) == 1
        file.commit()
        assert path.read_bytes() == OLD
        change(file, NEWS["short"])
        with pytest.raises(ConflictError):
            opened(path, timeout=0.01)
    assert names(tmp_path) == ["file"]
    assert content(path) == NEWS["short"]
    with opened(path, create=True) as file:
        assert (file.is_new, file.size) == (False, len(NEWS["short"]))


def test_a_block_that_raises_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"

    def write_and_raise():
        with opened(path, create=True) as file:
            file.write_at(NEWS["short"], 0)
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            write_and_raise()
        assert names(tmp_path) == []
    make(path, OLD[HEAD:])
    with pytest.raises(ZeroDivisionError):
        write_and_raise()
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("there", [True, False])
def test_nobody_gets_in_between_the_look_at_what_is_replaced_and_the_name(tmp_path, there):
    """Whoever came in there would be told that his file is there, and it would be gone a moment later."""
    path = tmp_path / "file"
    if there:
        make(path, OLD[HEAD:])

    class Late(PassingFiles):
        tried = 0

        def rename(self, source, target):
            self.tried += 1
            with (
                files.using(files.RealFiles()),
                pytest.raises(ConflictError, match="somebody else is"),
                opened(path, replace=True, timeout=0.05) as quick,
            ):
                quick.write_at(SHORTER, 0)
            super().rename(source, target)

    with files.using(late := Late()), opened(path, replace=True) as slow:
        slow.write_at(NEWS["short"], 0)
    assert late.tried == 1
    assert content(path) == NEWS["short"]
    assert names(tmp_path) == ["file"]


def test_replacing_does_not_touch_those_who_read_the_old_one(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])
    path.chmod(0o640)
    with opened(path, write=False) as reader:
        with opened(path, replace=True) as file:
            assert file.is_new
            file.write_at(SHORTER, 0)
        assert reader.read(0, reader.size) == OLD
        assert path.read_bytes() == SHORTER
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["file"]
    with pytest.raises(ConflictError, match="exists"):
        opened(path, replace=True, overwrite=False)


def test_a_replacement_of_a_damaged_file_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"damaged")
    with opened(path, replace=True) as file:
        file.write_at(SHORTER, 0)
    assert content(path) == SHORTER


def test_two_that_create_the_same_file_do_not_overwrite_one_another(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ConflictError, match="exists"), opened(path, create=True) as slow:  # noqa: PT012
        make(path, OLD[HEAD:])
        slow.write_at(SHORTER, 0)
    assert content(path) == OLD
    assert names(tmp_path) == ["file"]


# Refusals


def test_what_cannot_be_opened_is_a_typed_error(tmp_path):
    with pytest.raises(MissingFileError):
        opened(tmp_path / "none")
    with pytest.raises(MissingFileError, match="mkdir"):
        opened(tmp_path / "no" / "folder", create=True)
    with pytest.raises(InvalidStateError):
        opened(f"{tmp_path}/a\0b", create=True)
    os.mkfifo(tmp_path / "pipe")
    for write, path in itertools.product((True, False), (tmp_path, tmp_path / "pipe")):
        with pytest.raises(UnsafeError):
            opened(path, write=write)
    for write, bad in itertools.product((True, False), (b"", b"abc", OLD[:-1], OLD[:100], bytes(70))):
        path = tmp_path / "bad"
        path.write_bytes(bad)
        with pytest.raises(IntegrityError) as caught:
            opened(path, write=write)
        assert caught.value.path == str(path)
        assert path.read_bytes() == bad
    path.write_bytes(OLD)
    with opened(path):
        pass


def test_a_length_that_is_not_stated_is_not_committed(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])
    with pytest.raises(InvalidStateError, match="length") as caught, opened(path) as file:
        file.write_at(b"more", file.size)
    assert caught.value.path == str(path)
    assert path.read_bytes() == OLD


def test_reading_past_the_end_and_writing_what_is_read_only_are_refused(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])
    with opened(path, write=False) as file:
        for attempt in (file.read, file.map):
            with pytest.raises(IntegrityError, match="ends at byte"):
                attempt(len(OLD) - 5, 6)
        for attempt in (lambda: file.write(b"x"), lambda: file.truncate(0), file.commit):
            with pytest.raises(ConflictError, match="for reading"):
                attempt()
        with pytest.raises(ValueError, match="before"):
            file.seek(-1)
        assert file.seek(-3, os.SEEK_END) == len(OLD) - 3
        assert file.seek(1, os.SEEK_CUR) == len(OLD) - 2
    with pytest.raises(ConflictError, match="closed"):
        file.write(b"x")
    with pytest.raises(StorageError):
        file.read(0, 1)
    file.close()


def test_nothing_is_committed_after_an_error_that_somebody_swallowed(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])

    class FullDisk(files.RealFiles):
        def write_at(self, fd, data, offset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with files.using(FullDisk()), opened(path) as file:
        with pytest.raises(StorageError):
            file.write_at(b"x" * 100, file.size)
        assert isinstance(file.failure, StorageError)
        with pytest.raises(StorageError, match="space"):
            commit(file)
        assert file.failure is None
        assert file.read(0, file.size) == OLD  # it was abandoned
    assert path.read_bytes() == OLD


def test_a_child_neither_commits_nor_abandons_what_its_parent_writes(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])

    def leave():
        with pytest.raises(ConflictError, match="forked"):
            file.write(b"x")
        with pytest.raises(ConflictError, match="forked"):
            file.__exit__(None, None, None)

    for options in ({}, {"replace": True}):
        with opened(path, **options) as file:
            change(file, NEWS["short"]) if options else file.write_at(b"x" * 99, len(OLD))
            file.write_at(b"y" * 50, file.size)
            size = file.size
            assert in_child(leave) == 0
            assert in_child(file.close) == 0
            assert file.size == size
            assert file.read(size - 50, 50) == b"y" * 50
            with pytest.raises(ConflictError):
                opened(path, timeout=0)
            commit(file)
        assert len(content(path)) == size
    assert names(tmp_path) == ["file"]


def test_many_threads_append_at_once(tmp_path):
    path = tmp_path / "file"
    make(path, OLD[HEAD:])
    data = random_bytes(3, 40 << 20)
    with opened(path) as file:
        start, step = file.size, len(data) // 8
        file.truncate(start + len(data))

        def append(number):
            part = memoryview(data)[number * step : (number + 1) * step]
            file.write_at(part, start + number * step)
            check = bytearray(len(part))
            file.read_into(memoryview(check), start + number * step)
            assert check == part

        threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        commit(file)
    assert content(path)[len(OLD) :] == data


# Locks, with a second process

HOLDER = """
import sys
from quantum_memory.durability.transaction import TransactionFile
def stated(head):
    return int.from_bytes(head[:8], "little")
file = TransactionFile(sys.argv[1], write=sys.argv[2] == "write", committed_length=stated)
print("held", flush=True)
sys.stdin.readline()
file.close()
"""


class Holder:
    def __init__(self, path, how):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "held\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate(timeout=30)


def test_whoever_is_in_the_way_is_named_after_the_time_that_was_given(tmp_path):
    path = tmp_path / "file"
    make(path, b"x")
    for how, write, message in [("write", True, "writing"), ("write", False, "writing"), ("read", True, "reading")]:
        with Holder(path, how):
            begun = time.monotonic()
            with pytest.raises(ConflictError, match=rf"{message}.*waited 0\.2 s") as caught:
                opened(path, write=write, timeout=0.2)
            assert 0.2 <= time.monotonic() - begun < 5
            assert caught.value.exit_code == 7
            assert caught.value.next_step
    with Holder(path, "write"), pytest.raises(ConflictError):
        opened(path, replace=True, timeout=0)
    with Holder(path, "read"), opened(path, write=False, timeout=0) as file:
        assert file.size == HEAD + 1


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    path = tmp_path / "file"
    make(path, b"x")
    with Holder(path, "write") as holder:
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait(30)
        with opened(path, timeout=0):
            pass


def test_a_writer_waits_for_a_reader_and_then_sees_the_file_that_is_there(tmp_path):
    path = tmp_path / "file"
    make(path, b"old")
    with Holder(path, "read") as holder:
        make(tmp_path / "other", b"replaced")
        waiter = []
        thread = threading.Thread(target=lambda: waiter.append(opened(path, timeout=30)))
        thread.start()
        time.sleep(0.2)
        assert not waiter
        (tmp_path / "other").rename(path)
        holder.process.communicate("\n", timeout=30)
        thread.join(30)
    (file,) = waiter
    assert file.read(HEAD, file.size - HEAD) == b"replaced"
    file.close()


def test_without_locks_a_file_is_read_and_not_changed(tmp_path):
    path = tmp_path / "file"
    make(path, b"x")

    class NoLocks(files.RealFiles):
        def try_lock(self, fd, shared=False):
            raise OSError(errno.ENOLCK, "no locks")

    with files.using(NoLocks()):
        assert content(path) == with_length(b"x")
        with pytest.raises(StorageError, match="no locks"):
            opened(path)
        with opened(path, replace=True) as file:
            file.write_at(SHORTER, 0)
        assert content(path) == SHORTER


# HDF5 as it uses it


def test_an_hdf5_store_survives_a_crash_at_every_call_of_nine_transactions(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    path = folder / "store.h5"
    crashes = 0
    for number in range(9):
        before = path.read_bytes() if number else None
        known = {}  # of what a crash leaves, most is the same as what another one left
        for k in itertools.count(number % 3, 3):  # every call of every three transactions that are alike

            def work(dying, number=number):
                atomic.forget_sweeps()
                with files.using(dying):
                    append_group(path, number)

            if not killed_at(k, work):
                break
            crashes += 1
            left_over = frozenset((left.name, left.read_bytes()) for left in folder.iterdir())
            if left_over not in known:
                known[left_over] = groups(path)
            assert known[left_over] in {number, number + 1}
            for left in folder.iterdir():
                left.unlink()
            if before is not None:
                path.write_bytes(before)
        assert groups(path) == number + 1
        with h5py.File(path, "r") as root:  # it is a plain HDF5 file for others
            assert int(root.attrs["count"]) == number + 1
    assert crashes > 100
    assert names(folder) == ["store.h5"]


def test_the_first_error_of_the_disk_is_kept_whatever_hdf5_makes_of_it(tmp_path):
    path = tmp_path / "store.h5"
    append_group(path, 0)
    before = path.read_bytes()
    kept = 0
    for k in itertools.count():
        path.write_bytes(before)
        file = problem = None
        faulty = FaultyFiles(k, errno.EIO)
        with files.using(faulty):
            try:
                file = store(path, write=True)
                with file, h5py.File(file, "r+", libver="v110") as root:
                    root["big"] = np.arange(5000)
            except Exception as error:
                problem = error
        if not isinstance(problem, (QuantumMemoryError, type(None))):  # HDF5's, or one that it made h5py raise
            assert isinstance(file.failure, StorageError)
            assert file.failure.errno == errno.EIO
            kept += 1
        assert groups(path) == 1
        with store(path, write=False) as reader, h5py.File(reader, "r") as root:
            assert problem is not None or len(root["big"]) == 5000
        if not faulty.failed:
            break
    assert kept
    assert problem is None
