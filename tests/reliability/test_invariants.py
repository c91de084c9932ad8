"""`check_store` names what does not hold: each is broken once, of each kind of thing that it knows."""

import fcntl
import os

import h5py
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.testing.damage import flip_bit
from quantum_memory.testing.invariants import ANY, check_store, contents

KEY = qm.Key(bytes(32), "hkdf-sha256")


def state(number):
    return qm.MemoryState(classical={"w": np.arange(100) + number})


def file(place):
    qm.save(state(0), place / "state.qms")
    return place / "state.qms"


def sealed(place):
    qm.save(state(0), place / "state.qms", encrypt=KEY)
    return place / "state.qms"


def store(place):
    storage = qm.HDF5QuantumStorage(place / "store.h5")
    for number in range(2):
        storage.save_quantum_state(state(number), f"s{number}")
    return place / "store.h5"


def run(place):
    with qm.CheckpointManager(place / "run", signals=False) as manager:
        for number in range(2):
            manager.create_checkpoint(state(number))
    return place / "run"


def backups(place):
    with qm.BackupManager(place / "backups", compression=False) as manager:
        for number in range(2):
            (place / "source").write_bytes(b"%d" % number * 3000)
            manager.create_backup(place / "source")
    return place / "backups"


THINGS = {"file": file, "sealed": sealed, "store": store, "run": run, "backups": backups}


def key_of(name):
    return KEY if name == "sealed" else None


@pytest.fixture(params=THINGS)
def name(request):
    return request.param


@pytest.fixture
def path(name, tmp_path):
    return THINGS[name](tmp_path)


@pytest.fixture
def there(name, path):
    return contents(path, key=key_of(name))


def damage(path):
    """Flip a bit of what the oldest thing holds."""
    at = path
    if path.is_dir():
        at = min((path / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_mtime_ns)
    place = 100
    if path.suffix == ".h5":
        with h5py.File(path) as opened:
            place = opened["quantum_states/s0/classical_data/w"].id.get_offset()
    elif path.suffix == ".qms":
        place = path.stat().st_size // 2
    at.write_bytes(flip_bit(at.read_bytes(), 8 * place + 3))


def removed(path):
    """Remove the oldest thing, without asking anybody."""
    if path.suffix == ".h5":
        qm.HDF5QuantumStorage(path).delete_state("s0")
    elif path.is_dir():
        min((path / ("checkpoints" if path.name == "run" else "backups")).iterdir()).unlink()
    else:
        path.unlink()


def test_what_was_acknowledged_is_there(name, path, there):
    check_store(path, there, key=key_of(name))
    check_store(path, {}, pending={one: [content] for one, content in there.items()}, key=key_of(name))
    check_store(path, {}, pending={ANY: list(there.values())}, key=key_of(name))
    check_store(path, there, removed=there, key=key_of(name))
    assert len(there) == (1 if path.suffix == ".qms" else 2)
    assert contents(path, key=key_of(name)) == there


def test_nothing_is_written(name, path, there):
    before = {one: one.read_bytes() for one in path.parent.rglob("*") if one.is_file()}
    check_store(path, there, key=key_of(name))
    assert before == {one: one.read_bytes() for one in path.parent.rglob("*") if one.is_file()}


def test_nothing_needs_to_be_there(tmp_path):
    for one in ("state.qms", "store.h5", "folder"):
        check_store(tmp_path / one, {}, pending={ANY: ["0"]})
        with pytest.raises(AssertionError, match=r"^I1: 'x' of .* is gone"):
            check_store(tmp_path / one, {"x": "0"})


def test_i1_what_was_acknowledged_is_gone(name, path, there):
    removed(path)
    with pytest.raises(AssertionError, match=r"^I1: .* is gone"):
        check_store(path, there, key=key_of(name))
    check_store(path, there, removed=there, key=key_of(name))


def test_i1_what_was_acknowledged_is_damaged(name, path, there):
    damage(path)
    with pytest.raises(AssertionError, match=r"^I1: .* is damaged"):
        check_store(path, there, key=key_of(name))


def test_i2_what_was_not_acknowledged_is_there_in_part(name, path, there):
    whole = list(there.values())
    damage(path)
    with pytest.raises(AssertionError, match=r"^I2: .* is there in part"):
        check_store(path, {}, pending={ANY: whole}, key=key_of(name))


def test_i2_what_nobody_has_saved_is_there(name, path, there):
    with pytest.raises(AssertionError, match=r"^I2: .* nothing that was saved"):
        check_store(path, {}, key=key_of(name))
    with pytest.raises(AssertionError, match=r"^I2: .* nothing that was saved"):
        check_store(path, {}, pending={one: ["0"] for one in there}, key=key_of(name))


def test_i3_what_is_read_is_not_what_a_list_says(path, name, monkeypatch):
    if name == "backups":
        from quantum_memory.lifecycle.backups.restoring import Restorer

        monkeypatch.setattr(Restorer, "chunks", lambda self, entry: iter([b"short"]))
    else:
        monkeypatch.setattr(qm.MemoryState, "content_id", property(lambda self: "0"))
    with pytest.raises(AssertionError, match=r"^I3: "):
        contents(path, key=key_of(name))


def test_i4_what_was_there_before_is_another(name, path, there):
    old = dict.fromkeys(there, "0")
    with pytest.raises(AssertionError, match=r"^I4: .* neither what it was nor new"):
        check_store(path, old, key=key_of(name))
    check_store(path, old, pending={one: [content] for one, content in there.items()}, key=key_of(name))


@pytest.mark.parametrize("odd", ["tmp-1", "0123456789abcdef.tmp"])
def test_i5_nobody_knows_what_is_left_over(name, path, there, odd):
    known = path / ".x.0123456789abcdef.qmtmp" if path.is_dir() else path.with_name(f".{path.name}.{'0' * 16}.qmtmp")
    known.touch()
    check_store(path, there, key=key_of(name))
    (path / odd if path.is_dir() else path.with_name(f".{path.name}.{odd}")).touch()
    with pytest.raises(AssertionError, match=r"^I5: .*" + odd):
        check_store(path, there, key=key_of(name))


def test_i7_it_is_open_here(name, path, there):
    held = path / "lock" if path.is_dir() else path
    with held.open("rb"), pytest.raises(AssertionError, match=r"^I7: still open"):
        check_store(path, there, key=key_of(name))


def test_i7_somebody_else_has_locked_it(name, path, there):
    held = path
    if path.is_dir():  # nobody who reads waits for the lock of what is left over
        held = path / ".x.0123456789abcdef.qmtmp"
        held.touch()
    begun, end = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fcntl.flock(os.open(held, os.O_RDONLY), fcntl.LOCK_SH)
            os.write(begun[1], b"x")
            os.read(end[0], 1)
        finally:
            os._exit(0)
    try:
        os.read(begun[0], 1)
        with pytest.raises(AssertionError, match=r"^I7: .* is locked"):
            check_store(path, there, key=key_of(name))
    finally:
        os.write(end[1], b"x")
        os.waitpid(child, 0)
        for fd in (*begun, *end):
            os.close(fd)
    check_store(path, there, key=key_of(name))
