"""Old versions go, and what no version needs; nothing goes that somebody is about to commit."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cloud import cleaning
from quantum_memory.cloud.cleaning import WRITING
from quantum_memory.cloud.folder_place import FolderPlace
from quantum_memory.errors import ConflictError, InvalidStateError, MissingFileError
from quantum_memory.formats.urls import URL

_MIB = 1 << 20


def _state(k: int) -> qm.StateVector:
    return qm.StateVector(np.full(1 << 17, k + 1, np.complex64), qubit_order="big")


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Clocks agree to the instant, so that a test need not wait for an hour."""
    monkeypatch.setattr(cleaning, "_HOUR", datetime.timedelta(0))


def test_old_versions_go_and_named_ones_stay(url: str, at_once) -> None:
    for k in range(6):
        qm.save(_state(k), f"{url}@step-1" if k == 1 else url)
        time.sleep(0.01)
    repository = qm.repository(url)
    versions = [version.id for version in repository.history()]
    time.sleep(1.1)  # object storage counts in seconds
    assert repository.prune(2, dry_run=True).versions == ()
    pruned = repository.prune(2)
    assert set(pruned.versions) == set(versions[2:])
    assert pruned.bytes > 3 * _MIB
    assert [version.id for version in repository.history()] == versions[:2]
    assert [version.parent for version in repository.history()] == [versions[1], None]
    for name, k in ((None, 5), (versions[1], 4), ("step-1", 1)):
        address = url if name is None else f"{url}@{name}"
        qm.verify(address)
        assert np.array_equal(qm.load(address).quantum.amplitudes, _state(k).amplitudes)
    with pytest.raises(MissingFileError):
        qm.load(f"{url}@{versions[2]}")
    again = repository.prune(2)
    assert (again.versions, again.objects) == ((), 0)
    qm.save(_state(7), url)
    assert len(list(repository.history())) == 3


def test_what_is_young_stays(folder_url: str) -> None:
    for k in range(3):
        qm.save(_state(k), folder_url)
    pruned = qm.repository(folder_url).prune(1)
    assert len(pruned.versions) == 2
    assert pruned.objects == 0
    assert datetime.datetime.now(datetime.UTC) - pruned.before > datetime.timedelta(minutes=59)
    with pytest.raises(InvalidStateError, match="keep at least 1"):
        qm.repository(folder_url).prune(0)


def test_versions_stay_for_as_long_as_is_said(folder_url: str, at_once) -> None:
    for k in range(3):
        qm.save(_state(k), folder_url)
    repository = qm.repository(folder_url)
    assert repository.prune(within=datetime.timedelta(hours=1)).versions == ()
    assert len(list(repository.history())) == 3
    time.sleep(0.05)
    assert len(repository.prune(within=datetime.timedelta(0)).versions) == 2  # the newest stays, however old
    assert len(list(repository.history())) == 1


def test_what_somebody_is_writing_stays(url: str, at_once) -> None:
    qm.save(_state(0), url)
    with qm.transaction(url) as tx:
        part = tx.fork()
        part.write(0, _state(1).amplitudes)
        time.sleep(1.1)
        pruned = qm.repository(url).prune(1)
        assert (pruned.writing, pruned.given_up) == (1, 0)
        tx.merge(part)
    assert qm.load(url).quantum == _state(1)
    qm.verify(url)


def test_who_takes_a_week_is_given_up_and_told(folder_url: str, at_once, monkeypatch) -> None:
    qm.save(_state(0), folder_url)
    repository = qm.repository(folder_url)
    before = [version.id for version in repository.history()]
    now = time.time()

    def all_of_it() -> None:
        monkeypatch.setattr(time, "time", lambda: now - 8 * 86400)
        with qm.transaction(folder_url) as tx:
            monkeypatch.undo()
            part = tx.fork()
            part.write(0, _state(1).amplitudes)
            tx.merge(part)
            pruned = repository.prune()
            assert (pruned.writing, pruned.given_up) == (0, 1)
            assert pruned.before < datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=8)

    with pytest.raises(ConflictError, match="given up for dead"):
        all_of_it()
    assert [version.id for version in repository.history()] == before
    # Within the hour what it has written stays, then it goes.
    assert repository.prune().before < datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=8)
    monkeypatch.setattr(cleaning, "_HOUR", datetime.timedelta(0))
    assert repository.prune().before > datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=8)
    assert qm.load(folder_url).quantum == _state(0)


def test_strangers_are_given_a_week(folder_url: str, at_once) -> None:
    qm.save(_state(0), folder_url)
    pruned = qm.repository(folder_url).prune(strangers=True)
    assert datetime.datetime.now(datetime.UTC) - pruned.before > datetime.timedelta(days=6)


def test_one_at_a_time(url: str) -> None:
    qm.save(_state(0), url)
    repository = qm.repository(url)
    with repository._place.cleaning(), pytest.raises(ConflictError, match="somebody else"):
        qm.repository(url).prune(1)
    repository.prune(1)


def test_who_is_cut_off_while_versions_expire_loses_none(folder_url: str) -> None:
    for k in range(3):
        qm.save(_state(k), folder_url)
    place = FolderPlace(URL.parse(folder_url))
    snapshots = Path(URL.parse(folder_url).key, "snapshots")
    before = {path: path.read_bytes() for path in snapshots.iterdir()}

    def cut_off() -> None:
        with place.expiring():
            for path in sorted(before)[:2]:  # what a power cut makes of a file that is replaced
                path.unlink()
                path.touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert Path(place._held).is_dir()
    assert qm.load(folder_url).quantum == _state(2)
    assert {path: path.read_bytes() for path in snapshots.iterdir()} == before
    assert not Path(place._held).exists()
    assert len(list(qm.repository(folder_url).history())) == 3


def test_branches_that_are_written_to_say_when(folder_url: str) -> None:
    qm.save(_state(0), folder_url)
    repository = qm.repository(folder_url)
    with repository.writing() as writing:
        found = WRITING.fullmatch(writing.branch)
        assert abs(int(found[1], 16) - time.time()) < 60
        assert repository.branches().keys() == {"main"}
    assert repository._repository.list_branches() == {"main"}
