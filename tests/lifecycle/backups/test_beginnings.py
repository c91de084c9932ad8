"""Whatever a folder was left as when the first backup in it died: the next one goes on, and asks for no repair."""

import contextlib
import functools
import io
import json
import re
import shutil

import pytest

from quantum_memory.cli import main
from quantum_memory.durability import atomic, files
from quantum_memory.errors import QuantumMemoryError, WrongKeyError
from quantum_memory.lifecycle.backups.config import read_copies
from quantum_memory.testing.faults import KillingFiles, killed_at
from quantum_memory.testing.operations import Unsynced
from quantum_memory.testing.power_cuts import CrashModel

from .folders import KEY, manager


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


def saved(at, key, system=None):
    """Back up a file into a folder that is not there yet, or that somebody has begun; return the id."""
    with files.using(system or Unsynced()), manager(at / "backups", key) as backups:
        return backups.create_backup(at / "source")


def typed(at, key):
    """Do the same from the command line, and return the id."""
    assert key is None
    out = io.StringIO()
    with contextlib.redirect_stdout(out), files.using(Unsynced()):
        assert main.run(["backup", "create", str(at / "source"), "--json", "-C", str(at / "backups")]) == 0
    return json.loads(out.getvalue())["backups"][0]["id"]


def check_that_the_next_one_goes_on(at, key, save):
    """Return whether one of the two files was missing that say which keys open the folder."""
    copies = [copy for _, copy in read_copies(str(at / "backups"))]
    known = [copy.slots for copy in copies if copy is not None]
    one = save(at, key)
    with manager(at / "backups", key) as backups:
        report = backups.verify()
        assert report, report
        assert one in report.backups
        assert backups.repair(dry_run=True).problems == {}
        assert all(slots == backups.folder.config.slots for slots in known)  # no key is made where one is
    return copies.count(None) == 1


def outline(folder):
    """Return what there is, but for what chance has a part in."""
    return frozenset(
        (re.sub("[0-9a-f]{6,}|[0-9]+", "#", str(path.relative_to(folder))), path.is_dir() or path.stat().st_size)
        for path in folder.rglob("*")
    )


def test_after_a_kill_at_any_call(tmp_path):
    (tmp_path / "source").write_bytes(b"source")
    killing, k, halves, seen = functools.partial(KillingFiles, at_changes=True), 0, 0, set()
    while killed_at(k, functools.partial(saved, tmp_path, None), lambda k: killing(k, Unsynced())):
        if (found := outline(tmp_path / "backups")) not in seen:
            seen.add(found)
            halves += check_that_the_next_one_goes_on(tmp_path, None, typed)
        shutil.rmtree(tmp_path / "backups", ignore_errors=True)
        atomic.forget_sweeps()
        k += 1
    assert k > len(seen) > 10
    assert halves


def test_after_any_power_cut(tmp_path, key):
    at = tmp_path / "at"
    at.mkdir()
    (at / "source").write_bytes(b"source")
    model, halves, count = CrashModel(at, Unsynced()), 0, 0
    saved(at, key, model)
    for state, _ in model.states(most=32):
        state.put(at)
        atomic.forget_sweeps()
        if not (at / "source").exists():  # which was not synced either
            continue
        halves += check_that_the_next_one_goes_on(at, key, saved)
        count += 1
    assert count > 30
    assert halves


@pytest.mark.parametrize("name", ["config.json", "config-copy.json"])
def test_one_of_the_two_files_alone_is_completed_from_the_other(tmp_path, key, name):
    (tmp_path / "source").write_bytes(b"source")
    saved(tmp_path, key)
    folder = tmp_path / "backups"
    text = (folder / name).read_bytes()
    (folder / name).unlink()
    if key is not None:
        with manager(folder, None) as backups, pytest.raises(WrongKeyError):
            backups.create_backup(tmp_path / "source")
        assert not (folder / name).exists()
    saved(tmp_path, key)
    assert (folder / name).read_bytes() == text


def test_it_is_left_to_the_next_one_while_others_are_at_work(tmp_path):
    (tmp_path / "source").write_bytes(b"source")
    saved(tmp_path, None)
    gone = tmp_path / "backups" / "config.json"
    gone.unlink()
    with manager(tmp_path / "backups") as others, others.folder.store.shared():
        saved(tmp_path, None)
        assert not gone.exists()
    saved(tmp_path, None)
    assert gone.exists()


def test_keys_are_not_made_anew_where_the_only_copy_is_damaged(tmp_path):
    (tmp_path / "source").write_bytes(b"source")
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups" / "config-copy.json").write_bytes(b"{")
    with pytest.raises(QuantumMemoryError):
        saved(tmp_path, KEY)
    assert not (tmp_path / "backups" / "config.json").exists()
