"""Threads and processes that save into one folder at once lose nothing, whoever reads and removes meanwhile."""

import contextlib
import multiprocessing
import threading
import time

import numpy as np
import pytest

from quantum_memory.errors import ConflictError, MissingError
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.retention import KeepAll, KeepLast, KeepManual

THREADS, PROCESSES, EACH = 8, 4, 25
SHARED = np.arange(30_000)
LONG = 120.0


def manager(run, keep=None):
    return CheckpointManager(run, signals=False, durable=False, keep=keep or KeepAll())


def state(who, k):
    return {"who": who, "w": np.full(500, k), "shared": SHARED, "pairs": np.full(200, k // 2)}


def save(cm, who):
    """Save what is to stay, and beside each something that may go."""
    made = []
    for k in range(EACH):
        made.append(cm.create_checkpoint(state(who, k), f"{who} {k}", progress=k))
        cm.create_checkpoint({"rubbish": np.full(300, k), "who": who}, automatic=True)
    return made


def in_process(run, who, made):
    with manager(run) as cm:
        made.put(save(cm, who))


def test_three_hundred_of_three_hundred_are_there(tmp_path):
    run = tmp_path / "run"
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=in_process, args=(run, f"process {k}", queue)) for k in range(PROCESSES)]
    cm = manager(run)
    made, end, removed, read, failures = [], threading.Event(), [], [], []

    def noted(work):
        def run_it(*arguments):
            try:
                work(*arguments)
            except BaseException as error:
                failures.append(error)

        return run_it

    @noted
    def saving(who):
        made.extend(save(cm, who))

    @noted
    def pruning():
        with manager(run, KeepManual() | KeepLast(2)) as pruner:
            while not end.is_set():
                removed.extend(pruner.prune()["removed"])

    @noted
    def reading():
        with manager(run) as reader:
            while not end.is_set():
                for one in reader.list_checkpoints()[:5]:
                    try:
                        found = reader.restore(one["id"])
                    except MissingError:
                        assert one["automatic"]  # removed since it was listed
                        continue
                    if not one["automatic"]:
                        assert one["name"] == f"{found['who']} {found['w'][0]}"
                        read.append(one["id"])

    others = [threading.Thread(target=work) for work in (pruning, reading)]
    threads = [threading.Thread(target=saving, args=(f"thread {k}",)) for k in range(THREADS)]
    for one in [*others, *processes, *threads]:
        one.start()
    for _ in processes:
        made.extend(queue.get(timeout=LONG))
    for one in [*threads, *processes]:
        one.join()
    end.set()
    for one in others:
        one.join()
    assert failures == []
    assert [one.exitcode for one in processes] == [0] * PROCESSES
    assert len(made) == len(set(made)) == (THREADS + PROCESSES) * EACH
    assert read

    with manager(run) as fresh:
        there = {one["id"]: one for one in fresh.list_checkpoints()}
        assert set(made) <= set(there)
        assert not set(removed) & set(made)
        assert len(removed) + len(there) == 2 * len(made)
        assert set(fresh.verify().values()) == {None}
        seen = set()
        for one in made:
            found = fresh.restore(one)
            assert np.array_equal(found["shared"], SHARED)
            assert (found["w"] == there[one]["progress"]).all()
            seen.add((found["who"], int(found["w"][0])))
        assert len(seen) == len(made)


def test_those_that_are_read_are_not_removed_meanwhile(tmp_path):
    with manager(tmp_path / "run") as cm, manager(tmp_path / "run") as other:
        one = cm.create_checkpoint(state("a", 1))
        cm.create_checkpoint(state("a", 2))
        with cm.folder.reading(one) as reader:
            with pytest.raises(ConflictError), other.folder.store.alone(timeout=0.05):
                pass
            assert reader.check_everything() > 0
        other.delete_checkpoint(one)
        assert len(cm.list_checkpoints()) == 1


def test_managers_that_all_remove_lose_nothing_that_was_acknowledged_last(tmp_path):
    """Each keeps one: the newest that somebody read back is always there."""
    run, failures = tmp_path / "run", []

    def work(who):
        try:
            with manager(run, KeepLast(1)) as cm:
                for k in range(15):
                    cm.create_checkpoint(state(who, k))
                    with contextlib.suppress(MissingError):  # another has saved a newer one, and removed it
                        assert cm.restore()["w"].size
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LONG
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive()
    assert failures == []
    with manager(run, KeepLast(1)) as cm:
        assert len(cm.list_checkpoints()) >= 1
        assert set(cm.verify().values()) == {None}
