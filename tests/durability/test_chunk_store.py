"""A store of chunks keeps what is needed, whoever else is at work in it and whatever happens."""

import contextlib
import errno
import hashlib
import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from quantum_memory.durability import files, pack
from quantum_memory.durability.chunk_store import ChunkStore
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    StorageError,
    UnsupportedVersionError,
)
from quantum_memory.testing.faults import FaultyFiles, PassingFiles, RecordingFiles, in_child, killed_at

ENTRIES = "chunks"


def name_of(chunk):
    return hashlib.sha256(chunk).digest()


def save(store, *chunks):
    with store.shared(), store.writer() as writer:
        for chunk in chunks:
            writer.add(name_of(chunk), chunk, check=pack.checksum(chunk), codec=0, raw=len(chunk))
    return writer.new_bytes


def read(store, name):
    buffer = memoryview(bytearray(store.place(name)[1].stored))
    store.read_into(name, buffer)
    return bytes(buffer)


def content(folder):
    """Return what somebody finds who opens the store anew."""
    store = ChunkStore(folder)
    with store.shared():
        assert not store.damaged
        return {name: read(store, name) for one in store.packs for name in _names(store, one)}


def _names(store, one):
    found = []
    store.check(one, lambda name, *_: found.append(name))
    return found


def collect(store, *needed):
    with store.alone():
        return store.collect({name_of(chunk) for chunk in needed})


def packs(folder):
    return sorted(path.name for path in Path(folder, ENTRIES).iterdir())


# What is saved is there, once


def test_what_is_saved_is_read_and_is_there_once(tmp_path):
    store = ChunkStore(tmp_path / "run")
    assert save(store, b"a" * 10, b"b" * 100_000, b"a" * 10) > 100_000
    assert save(store, b"b" * 100_000) == 0
    assert len(packs(tmp_path / "run")) == 1
    assert content(tmp_path / "run") == {name_of(one): one for one in (b"a" * 10, b"b" * 100_000)}


def test_without_a_chunk_no_file_is_made(tmp_path):
    store = ChunkStore(tmp_path / "run")
    assert save(store) == 0
    assert packs(tmp_path / "run") == []


def test_a_chunk_that_is_not_there_is_said_to_be_missing(tmp_path):
    store = ChunkStore(tmp_path)
    save(store, b"a")
    with store.shared(), pytest.raises(MissingError, match="in none of the packs"):
        read(store, name_of(b"b"))


def test_a_save_that_fails_leaves_nothing(tmp_path):
    store = ChunkStore(tmp_path)

    def fail():
        with store.shared(), store.writer() as writer:
            writer.add(name_of(b"a"), b"a", check=pack.checksum(b"a"), codec=0, raw=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert packs(tmp_path) == []
    assert save(store, b"a") > 0


def test_a_save_takes_two_syncs(tmp_path):
    store = ChunkStore(tmp_path)
    save(store, b"first")
    recorder = RecordingFiles()
    with files.using(recorder):
        save(store, *(bytes([k]) * 1000 for k in range(200)))
    assert [call.name for call in recorder.log].count("fsync") == 2


def test_the_rules_of_durable_writing_are_kept(tmp_path):
    recorder = RecordingFiles()
    with files.using(recorder):
        story(tmp_path / "run")
    assert recorder.violations() == []


def test_more_packs_than_stay_open(tmp_path):
    store = ChunkStore(tmp_path, durable=False)
    for k in range(100):
        save(store, b"%d" % k)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert len(content(tmp_path)) == 100
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 80


# Collections


def test_what_is_not_needed_goes_and_what_is_needed_stays(tmp_path):
    store = ChunkStore(tmp_path)
    a, b, c, d = (bytes([k]) * 5000 for k in range(4))
    save(store, a, b)
    save(store, c)
    save(store, d)
    done = collect(store, a, d)
    assert content(tmp_path) == {name_of(a): a, name_of(d): d}
    assert (done.packs_removed, done.packs_written, done.chunks_removed) == (2, 1, 2)
    assert done.bytes_kept == sum(Path(tmp_path, ENTRIES, one).stat().st_size for one in packs(tmp_path))
    assert collect(store, a, d).packs_removed == 0


def test_a_little_waste_is_not_worth_a_copy(tmp_path):
    store = ChunkStore(tmp_path)
    chunks = [bytes([k]) * 5000 for k in range(20)]
    save(store, *chunks)
    assert collect(store, *chunks[1:]).packs_written == 0
    assert len(content(tmp_path)) == 20
    assert collect(store, *chunks[:10]).packs_written == 1
    assert len(content(tmp_path)) == 10


def test_what_is_needed_of_a_pack_is_written_anew_as_it_was_stored(tmp_path):
    """However it was packed: what unpacks it, and to how many bytes, is known from the pack alone."""
    store = ChunkStore(tmp_path)
    raw = {(codec, length): bytes([codec]) * length for codec in range(4) for length in (300, 5000)}
    stored = {one: raw[one] if one[0] == 0 else bytes([one[0], 255]) * (one[1] // 10) for one in raw}
    with store.shared(), store.writer() as writer:
        writer.add(name_of(b"x" * 9000), b"x" * 9000, check=pack.checksum(b"x" * 9000), codec=0, raw=9000)
        for one, data in stored.items():
            writer.add(name_of(raw[one]), data, check=pack.checksum(data), codec=one[0], raw=one[1])
    old = packs(tmp_path)
    assert collect(store, *raw.values()).packs_written == 1
    assert not set(old) & set(packs(tmp_path))
    for one in (store, ChunkStore(tmp_path)):
        with one.shared():
            for (codec, length), data in stored.items():
                place = one.place(name_of(raw[codec, length]))[1]
                assert (place.codec, place.raw, place.stored) == (codec, length, len(data))
                assert read(one, name_of(raw[codec, length])) == data


def test_others_notice_a_collection(tmp_path):
    store, other = ChunkStore(tmp_path), ChunkStore(tmp_path)
    save(store, b"a" * 99)
    save(other, b"b" * 99)
    collect(store, b"b" * 99)
    assert save(other, b"a" * 99) > 0  # not taken for one that is there
    assert set(content(tmp_path).values()) == {b"a" * 99, b"b" * 99}


def test_a_chunk_that_is_there_twice_and_damaged_once_is_not_lost(tmp_path):
    store, other = ChunkStore(tmp_path), ChunkStore(tmp_path)
    with store.shared(), store.writer() as one:  # at the same time, so that neither sees what the other writes
        one.add(name_of(b"a" * 99), b"a" * 99, check=pack.checksum(b"a" * 99), codec=0, raw=99)
        save(other, b"a" * 99)
    assert len(packs(tmp_path)) == 2
    fresh = ChunkStore(tmp_path)
    with fresh.shared():
        first, place = fresh.place(name_of(b"a" * 99))
    path = tmp_path / ENTRIES / first
    path.write_bytes(path.read_bytes()[: place.offset] + b"x" + path.read_bytes()[place.offset + 1 :])
    collect(fresh, b"a" * 99)
    again = ChunkStore(tmp_path)
    with again.shared():
        assert read(again, name_of(b"a" * 99)) == b"a" * 99


def test_nothing_is_collected_while_somebody_reads(tmp_path):
    store, other = ChunkStore(tmp_path), ChunkStore(tmp_path)
    save(store, b"a")
    with store.shared(), pytest.raises(ConflictError), other.alone(timeout=0.05):
        pass
    with store.alone(), pytest.raises(ConflictError), other.shared(timeout=0.05):
        pass


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    code = f"""
import os, time
from quantum_memory.durability.chunk_store import ChunkStore
with ChunkStore({str(tmp_path)!r}).alone():
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ConflictError), ChunkStore(tmp_path).shared(timeout=0.05):
            pass
        child.kill()
        child.wait()
        assert save(ChunkStore(tmp_path), b"a") > 0


class Model(RuleBasedStateMachine):
    """Several stores on one folder, against a set."""

    chunks = Bundle("chunks")

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.mkdtemp()
        self.stores = [ChunkStore(self.folder, durable=False) for _ in range(3)]
        self.there = set()

    @rule(target=chunks, which=st.integers(0, 2), data=st.lists(st.binary(min_size=1, max_size=400), max_size=5))
    def save(self, which, data):
        save(self.stores[which], *data)
        self.there |= set(data)
        return multiple(*data)

    @rule(which=st.integers(0, 2), needed=st.lists(chunks, max_size=6))
    def collect(self, which, needed):
        collect(self.stores[which], *needed)
        kept = set(content(self.folder).values())
        assert set(needed) & self.there <= kept <= self.there
        self.there = kept

    @rule(which=st.integers(0, 2))
    def forget(self, which):
        self.stores[which].close()
        self.stores[which] = ChunkStore(self.folder, durable=False)

    @invariant()
    def all_is_there(self):
        if self.there:
            assert set(content(self.folder).values()) == self.there

    def teardown(self):
        for store in self.stores:
            store.close()


Model.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
TestModel = Model.TestCase


# Whatever happens


def story(folder):
    """Save three times, and collect what only the second needs."""
    store = ChunkStore(folder)
    save(store, b"a" * 100, b"b" * 100)
    save(store, b"c" * 100)
    with store.alone():
        store.collect({name_of(b"a" * 100), name_of(b"c" * 100)})
    store.close()


ALL = {name_of(one): one for one in (b"a" * 100, b"b" * 100, b"c" * 100)}


def is_whole(folder):
    """Everything that is there is right; what the story has acknowledged, the caller knows."""
    if not Path(folder, "lock").exists():
        return {}
    found = content(folder)
    assert found.items() <= ALL.items()
    return found


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EINTR])
def test_every_call_fails_once(tmp_path, error):
    for k in range(500):
        folder = tmp_path / str(k)
        faulty = FaultyFiles(k, error)
        with files.using(faulty), contextlib.suppress(StorageError, IntegrityError, MissingError, ConflictError):
            story(folder)
        is_whole(folder)
        story(folder)  # and it goes on
        assert name_of(b"a" * 100) in content(folder)
        if not faulty.failed:
            break
    assert 40 < k < 499


def test_a_kill_at_every_call(tmp_path):
    for k in range(500):
        folder = tmp_path / str(k)

        def work(dying, folder=folder):
            with files.using(dying):
                story(folder)

        killed = killed_at(k, work)
        is_whole(folder)
        story(folder)
        assert name_of(b"c" * 100) in content(folder)
        if not killed:
            break
    assert 40 < k < 499


def test_threads_and_processes_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    folder = str(tmp_path / "run")
    processes = [context.Process(target=_work, args=(folder, k)) for k in range(3)]
    for one in processes:
        one.start()
    collector = ChunkStore(folder, durable=False)
    end = time.monotonic() + 60
    while any(one.is_alive() for one in processes) and time.monotonic() < end:
        try:
            with collector.alone(timeout=1):
                collector.collect({name_of(b"%d" % k * 50) for k in range(1000)})
        except ConflictError:
            pass
    for one in processes:
        one.join(60)
        assert one.exitcode == 0
    assert {b"%d" % k * 50 for k in range(300)} <= set(content(folder).values())


def _work(folder, process):
    store = ChunkStore(folder, durable=False)

    def one(thread):
        for k in range(25):
            save(store, b"%d" % (process * 100 + thread * 25 + k) * 50, b"rubbish %d" % k * 50)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Damage


@pytest.fixture
def packed(tmp_path):
    store = ChunkStore(tmp_path)
    save(store, b"a" * 3, b"b" * 70)
    (path,) = (tmp_path / ENTRIES).iterdir()
    return store, path, path.read_bytes()


def test_a_damaged_pack_takes_only_its_own_chunks_along(packed, tmp_path):
    store, path, data = packed
    save(store, b"c")
    path.write_bytes(data[:-1])
    fresh = ChunkStore(tmp_path)
    with fresh.shared():
        assert list(fresh.damaged) == [path.name]
        assert read(fresh, name_of(b"c")) == b"c"
        with pytest.raises(MissingError):
            read(fresh, name_of(b"a" * 3))
    assert save(fresh, b"a" * 3) > 0  # so that it is whole again


class SickDisk(PassingFiles):
    """Does not read one file between two offsets."""

    def __init__(self, path, start=0, stop=1 << 60):
        super().__init__()
        self.path, self.start, self.stop = path, start, stop
        self.reads = 0

    def read_into(self, fd, buffer, offset):
        if offset < self.stop and self.start < offset + len(buffer) and Path(f"/proc/self/fd/{fd}").samefile(self.path):
            self.reads += 1
            raise OSError(errno.EIO, "sick")
        return super().read_into(fd, buffer, offset)


def test_a_pack_that_the_disk_does_not_read_stops_nothing_else_and_is_tried_again(packed, tmp_path):
    store, path, _ = packed
    save(store, b"c")
    fresh, sick = ChunkStore(tmp_path), SickDisk(path)
    with files.using(sick), fresh.shared():
        assert isinstance(fresh.damaged[path.name], StorageError)
        assert read(fresh, name_of(b"c")) == b"c"
        with pytest.raises(StorageError, match="of another it is not known") as info:
            read(fresh, name_of(b"a" * 3))
    assert info.value.errno == errno.EIO
    assert info.value.path == str(path)
    with files.using(sick):
        assert save(fresh, b"d") > 0
        collect(fresh, b"a" * 3, b"d")
    assert path.exists()
    with fresh.shared():
        assert not fresh.damaged
        assert read(fresh, name_of(b"a" * 3)) == b"a" * 3
        assert name_of(b"c") not in fresh
    assert sick.reads == 3


def half_needed(tmp_path, packs=1):
    """Save packs of four chunks, and return the store, the chunks, and the first two of each pack."""
    store = ChunkStore(tmp_path)
    chunks = [[bytes([4 * k + n]) * 5000 for n in range(4)] for k in range(packs)]
    for one in chunks:
        save(store, *one)
    return store, chunks, [chunk for one in chunks for chunk in one[:2]]


def rot(store, chunk):
    """Change a byte of a chunk on disk, and return the path of its pack and where."""
    name, place = store.place(name_of(chunk))
    path = Path(store.folder, ENTRIES, name)
    data = bytearray(path.read_bytes())
    data[place.offset + 9] ^= 1
    path.write_bytes(data)
    return path, place


@pytest.mark.parametrize("fault", ["rot", "EIO"])
def test_a_pack_with_the_only_copy_of_what_cannot_be_read_stays_and_the_others_are_compacted(tmp_path, fault):
    store, chunks, needed = half_needed(tmp_path, packs=3)
    name, place = store.place(name_of(chunks[1][1]))
    path, disk = tmp_path / ENTRIES / name, files.RealFiles()
    if fault == "rot":
        rot(store, chunks[1][1])
    else:
        disk = SickDisk(path, place.offset, place.offset + place.stored)
    before = path.read_bytes()
    with files.using(disk):
        done = collect(ChunkStore(tmp_path), *needed)
        assert (done.packs_removed, done.packs_written) == (2, 1)
        assert path.read_bytes() == before
    recorder = RecordingFiles(disk)
    with files.using(recorder):
        again = collect(ChunkStore(tmp_path), *needed)
        assert (again.packs_removed, again.packs_written, again.bytes_removed) == (0, 0, 0)
    assert recorder.bytes_written == 24  # the number of collections: nothing was copied
    assert len(packs(tmp_path)) == 2
    fresh = ChunkStore(tmp_path)
    with fresh.shared():
        assert sorted(len(fresh.chunks_of(one)) for one in fresh.packs) == [4, 4]  # nothing of it is there twice
        assert [read(fresh, name_of(chunk)) for chunk in needed if chunk != chunks[1][1]] == needed[:3] + needed[4:]


def test_a_pack_whose_damaged_chunk_is_elsewhere_as_well_is_compacted(tmp_path):
    store, _, needed = half_needed(tmp_path)
    path, _ = rot(store, needed[1])
    with store.shared(), pytest.raises(IntegrityError):
        read(store, name_of(needed[1]))
    assert save(store, needed[1]) > 5000
    for one in (store, ChunkStore(tmp_path)):
        collect(one, *needed)
    assert not path.exists()
    assert set(content(tmp_path).values()) == set(needed)


def test_of_two_copies_the_one_that_the_disk_does_not_read_is_not_relied_on(tmp_path):
    store, other = ChunkStore(tmp_path), ChunkStore(tmp_path)
    with store.shared(), store.writer() as one:
        one.add(name_of(b"a" * 99), b"a" * 99, check=pack.checksum(b"a" * 99), codec=0, raw=99)
        save(other, b"a" * 99)
    with other.shared():
        place = other.place(name_of(b"a" * 99))[1]
    with files.using(SickDisk(tmp_path / ENTRIES / packs(tmp_path)[0], place.offset, place.offset + place.stored)):
        collect(ChunkStore(tmp_path), b"a" * 99)
    assert len(packs(tmp_path)) == 2


def test_a_pack_that_is_cut_short_after_it_was_looked_at_gives_way_to_another_copy(tmp_path):
    store, other = ChunkStore(tmp_path), ChunkStore(tmp_path)
    with store.shared(), store.writer() as one:
        one.add(name_of(b"a" * 99), b"a" * 99, check=pack.checksum(b"a" * 99), codec=0, raw=99)
        save(other, b"a" * 99)
    fresh = ChunkStore(tmp_path)
    with fresh.shared():
        name, place = fresh.place(name_of(b"a" * 99))
        with Path(tmp_path, ENTRIES, name).open("r+b") as file:
            file.truncate(place.offset + 1)
        assert read(fresh, name_of(b"a" * 99)) == b"a" * 99


def test_a_newer_pack_and_a_newer_folder_say_which_release_is_needed(packed, tmp_path):
    _, _, data = packed
    newer = bytearray(data[:8] + (7).to_bytes(4, "little") + (7).to_bytes(4, "little") + data[16:])
    newer[56:64] = pack.checksum(newer[:56]).to_bytes(8, "little")
    with pytest.raises(UnsupportedVersionError, match="version 7"):
        pack.read_index(ReadableBytes(newer))
    lock = tmp_path / "lock"
    lock.write_bytes(lock.read_bytes()[:8] + (7).to_bytes(4, "little") * 2 + bytes(8))
    with pytest.raises(UnsupportedVersionError, match="version 7"), ChunkStore(tmp_path).shared():
        pass


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "lock").write_bytes(b"pid 1234\n")
    with pytest.raises(IntegrityError, match="not the lock"), ChunkStore(tmp_path).shared():
        pass
    assert (tmp_path / "lock").read_bytes() == b"pid 1234\n"


def test_in_a_child_that_was_forked_it_works(tmp_path):
    store = ChunkStore(tmp_path)
    save(store, b"a")
    assert in_child(lambda: save(store, b"b")) == 0
    assert set(content(tmp_path).values()) == {b"a", b"b"}
