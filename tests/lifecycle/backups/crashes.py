"""A loop that backs up, restores and removes until it dies, and what must be there then."""

import contextlib
import os
import random
import shutil
import signal
import struct
import warnings
from functools import partial

from quantum_memory.durability import atomic
from quantum_memory.lifecycle.backup_manager import BackupManager

from ...loop_disk import XFS
from ..killed_loop import killed_loop
from .trees import looked_at

SHARED = bytes(range(256)) * 400


def manager(place, **options):
    return BackupManager(place / "backups", 3, **options)


def write_source(place, k):
    """Write version `k` of the source: three files, one of which is always the same."""
    source = place / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for name, content in versions(k).items():
        (source / name).write_bytes(content)


def versions(k):
    return {"k": b"%d" % k, "w": b"%06d" % k * 500, "shared": SHARED}


def version_of(folder):
    """Return which version a folder is of, whole."""
    found = {path.decode(): thing.content for path, thing in looked_at(folder).items() if path}
    k = int(found["k"])
    assert found == versions(k)
    return k


def back_up_for_ever(place, k, acknowledge, **options):
    """Back up one version after another, restore every other one over the last, and say so, until it fails."""
    with contextlib.suppress(BaseException), warnings.catch_warnings():
        warnings.simplefilter("error")
        bm = manager(place, **options)
        os.write(acknowledge, struct.pack("<I", k))
        while True:
            k += 1
            write_source(place, k)
            one = bm.create_backup(place / "source", f"{k}")
            os.write(acknowledge, struct.pack("<I", k))
            if k % 2:
                done = bm.restore_backup(one, place / "out")
                if done.replaced:
                    os.rename(done.replaced, place / "rubbish")  # noqa: PTH104 - what has its name is whole
                    shutil.rmtree(place / "rubbish")
    os._exit(0)


def check(place, acknowledged):
    """See that nothing is torn or lost, and return the last version that is there."""
    atomic._swept.clear()  # as a new process begins
    shutil.rmtree(place / "rubbish", ignore_errors=True)
    if not list((place / "backups").glob("config*.json")):
        assert acknowledged == 0
        return 0
    with manager(place, durable=False) as bm:
        report = bm.verify()
        assert report.damaged == [], report
        listed = bm.list_backups()
        if not listed:
            assert acknowledged == 0, f"{acknowledged} was acknowledged, and nothing is there"
            return 0
        k = int(listed[0]["description"])
        assert k >= acknowledged, f"{acknowledged} was acknowledged, and {k} is there"
        bm.restore_backup(listed[0]["id"], place / "looked at")
        assert version_of(place / "looked at") == k
        shutil.rmtree(place / "looked at")
        for out in [one for one in place.iterdir() if one.name.startswith("out")]:  # a whole folder, or none
            version_of(out)
        return k


def check_going_on(place, k):
    """Make and restore one more: then nothing is left over."""
    with manager(place, durable=False) as bm:
        write_source(place, k + 1)
        one = bm.create_backup(place / "source", f"{k + 1}")
        bm.restore_backup(one, place / "out")
        with bm.folder.store.alone():
            bm.folder.sweep()
            bm.folder.collect()
        bm.cleanup_orphaned_backups(grace=0)
        bm.repair()  # of the two copies of config.json one may be missing, after a cut while the folder was made
        assert bm.verify(), bm.verify()
    assert version_of(place / "out") == k + 1
    assert [one for one in place.iterdir() if atomic.is_leftover(one.name)] == []
    assert [one for one in (place / "backups").rglob("*") if atomic.is_leftover(one.name)] == []


def kill_at_random(place, kills):
    """Kill so many loops, each of which goes on from the one before, and return how often something was saved."""
    rng, k, saves = random.Random(kills), 0, 0
    for number in range(20 * kills):
        if number >= kills and saves:  # on a machine that has much to do, it takes more until something is saved
            break
        acks = killed_loop(partial(back_up_for_ever, place, k, durable=False), rng, 0.1)
        saves += len(acks)
        k = check(place, max(acks, default=k))
        for one in place.iterdir():
            if ".before-" in one.name:
                shutil.rmtree(one)
    check_going_on(place, k)
    return saves


def cut_at_random(disk, kind, cuts):
    """Cut the power under so many loops, and return how often something was saved."""
    rng, k, saves = random.Random(" ".join(kind)), 0, 0
    place = disk.mount / "place"
    place.mkdir()
    disk.again()

    def cut(child):
        if kind == XFS:  # see tests/soak/test_power_cuts.py
            os.kill(child, signal.SIGSTOP)
            os.waitpid(child, os.WUNTRACED)
        disk.cut(commit=rng.random() < 0.5)

    for number in range(20 * cuts):
        if number >= cuts and saves:
            break
        acks = killed_loop(partial(back_up_for_ever, place, k), rng, 0.2, cut)
        disk.again()
        saves += len(acks)
        k = check(place, max(acks, default=k))
        for one in place.iterdir():
            if ".before-" in one.name:
                shutil.rmtree(one)
    check_going_on(place, k)
    return saves
