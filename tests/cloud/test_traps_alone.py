"""Icechunk and zarr alone, without this package, lose data in five ways and say nothing: each is shown here.

What this package does against them rests on this. A test that fails here after an update of Icechunk or zarr says that
a trap is gone, and that what closes it can be simpler, or go.
"""

import ctypes
import datetime
import os
import uuid

import icechunk
import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from quantum_memory.testing.loop_disk import EXT4, EXT4_LEAST, LoopDisk, can_cut_power

from . import servers
from .races import Place, Racers

GONE = "the trap is gone"
CHUNK = 1 << 12


@pytest.fixture(scope="module")
def racers():
    with Racers() as racers:
        yield racers


def folder_at(path):
    return icechunk.local_filesystem_storage(str(path))


def write(store, value):
    array = zarr.create_array(
        store, name="numbers", shape=(4 * CHUNK,), chunks=(CHUNK,), dtype="f8", compressors=None, overwrite=True
    )
    array[:] = value


def read(path):
    """Return the numbers of the head, each once."""
    session = icechunk.Repository.open(folder_at(path)).readonly_session("main")
    return set(zarr.open_array(session.store, path="numbers", mode="r")[:].tolist())


def test_committers_to_one_folder_undo_each_others_commits(tmp_path, racers):
    """Four processes commit to a repository in a folder, and some commits that were acknowledged are not there."""
    for race in range(10):
        if racers.race(Place(str(tmp_path / str(race))), each=25).lost:
            return
    pytest.fail(GONE)


def test_a_server_without_conditions_loses_commits(careless, racers):
    """The same on a server that takes no notice of the conditions of writes: nobody asks whether it does."""
    for _ in range(3):
        if racers.race(Place(uuid.uuid4().hex, careless, servers.BUCKET, *servers.KEYS), each=25).lost:
            return
    pytest.fail(GONE)


def test_a_server_with_conditions_loses_none(s3, racers):
    """The same on a server that keeps them: so it is the conditions that matter, and not the race."""
    outcome = racers.race(Place(uuid.uuid4().hex, s3.endpoint, s3.bucket, *servers.KEYS), each=10)
    assert len(outcome.acknowledged) == 40
    assert outcome.kept == outcome.acknowledged


@pytest.mark.parametrize("hours", [0, 1])
def test_a_collection_takes_the_chunks_of_who_has_not_committed_yet(tmp_path, hours):
    """A commit succeeds whose chunks are gone, and its head cannot be read; unless what is new was spared."""
    icechunk.Repository.create(folder_at(tmp_path))
    session = icechunk.Repository.open(folder_at(tmp_path)).writable_session("main")
    write(session.store, 1.0)
    now = datetime.datetime.now(datetime.UTC)
    done = icechunk.Repository.open(folder_at(tmp_path)).garbage_collect(now - datetime.timedelta(hours=hours))
    session.commit("of chunks that are gone")
    if hours:
        assert done.chunks_deleted == 0
        assert read(tmp_path) == {1.0}
        return
    assert done.chunks_deleted == 4, GONE
    with pytest.raises(icechunk.IcechunkError, match="not found"):
        read(tmp_path)


@pytest.mark.parametrize("how", ["zarr", "icechunk"])
@pytest.mark.parametrize("compressors", [(), (Crc32cCodec(),)], ids=["no codec", "CRC"])
def test_a_flipped_bit_is_read(tmp_path, how, compressors):
    """Other numbers than were written are read, without a word; unless there is a codec that looks."""
    repository = icechunk.Repository.create(folder_at(tmp_path)) if how == "icechunk" else None
    session = repository.writable_session("main") if repository else None
    store = session.store if session else zarr.storage.LocalStore(tmp_path)
    numbers = np.arange(1, CHUNK + 1)
    zarr.create_array(store, name="numbers", data=numbers, chunks=(CHUNK,), compressors=compressors)
    if session:
        session.commit("whole")
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= numbers.nbytes)
    with path.open("r+b") as file:
        file.seek(8 * 1000)
        byte = file.read(1)[0]
        file.seek(8 * 1000)
        file.write(bytes([byte ^ 1]))
    if repository:
        store = icechunk.Repository.open(folder_at(tmp_path)).readonly_session("main").store
    array = zarr.open_array(store, path="numbers", mode="r")
    if compressors:
        with pytest.raises(ValueError, match="checksum"):
            array[:]
        return
    assert (array[:] != numbers).sum() == 1, GONE


@pytest.mark.skipif(not can_cut_power(), reason="needs root, loop devices and the mkfs tools")
@pytest.mark.parametrize("synced", [False, True], ids=["not synced", "synced"])
@pytest.mark.parametrize("journal", [False, True], ids=["journal not committed", "journal committed"])
@pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST], ids=str)
def test_a_power_cut_takes_what_was_committed_to_a_folder(tmp_path, kind, journal, synced):
    """An acknowledged commit is lost; with the journal committed meanwhile, the repository with all that it had.

    If somebody syncs the file system after the commit, all is there: so nobody else does.
    """
    with LoopDisk(tmp_path, kind) as disk:
        path = disk.mount / "repository"
        for value in (1.0, 2.0):
            disk.again()  # what was committed before is on the disk
            session = icechunk.Repository.open_or_create(folder_at(path)).writable_session("main")
            write(session.store, value)
            session.commit(str(value))
        if synced:
            sync(disk.mount)
        disk.cut(commit=journal)
        disk.again()
        if synced:
            assert read(path) == {2.0}
        elif journal:
            # The new list of names points at files that are empty.
            with pytest.raises((icechunk.IcechunkError, zarr.errors.ArrayNotFoundError)):
                read(path)
        else:
            assert read(path) == {1.0}, GONE


def sync(folder):
    fd = os.open(folder, os.O_RDONLY)
    try:
        assert ctypes.CDLL(None).syncfs(fd) == 0
    finally:
        os.close(fd)
