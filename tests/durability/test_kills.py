"""Processes that die or are interrupted: what a sweep removes and what it leaves, forks, and several at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.testing.faults import in_child

from .conftest import leftovers, names


def test_what_a_living_writer_has_not_finished_is_left_alone(tmp_path, old):
    with DurableFile(tmp_path / "slow.qms") as sink:
        sink.write(b"half")
        assert len(leftovers(tmp_path)) == 1
        assert atomic.remove_leftovers(tmp_path) == []
        assert in_child(lambda: (atomic.forget_sweeps(), qm.save(old, tmp_path / "other.qms"))) == 0
        assert len(leftovers(tmp_path)) == 1
    assert (tmp_path / "slow.qms").read_bytes() == b"half"
    assert leftovers(tmp_path) == []


def test_only_what_is_named_like_a_leftover_is_removed(tmp_path):
    ours = [".state.qms.0123456789abcdef.qmtmp", ".line\nbreak.qms.0123456789abcdef.qmtmp"]
    others = ["state.qms", ".state.qmtmp", "x.0123456789abcdef.qmtmp", ".a.0123456789ABCDEF.qmtmp"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".folder.0123456789abcdef.qmtmp").mkdir()
    (tmp_path / ".link.0123456789abcdef.qmtmp").symlink_to(tmp_path / "state.qms")
    os.mkfifo(tmp_path / ".pipe.0123456789abcdef.qmtmp")
    removed = atomic.remove_leftovers(tmp_path)
    assert sorted(Path(path).name for path in removed) == sorted(ours)
    assert set(others) < set(names(tmp_path))
    assert len(leftovers(tmp_path)) == 6


def test_a_sweep_between_creation_and_lock_does_not_lose_the_save(tmp_path, new):
    """The temporary file is taken by another process's sweep in the moment before its writer locks it."""

    class Swept(files.RealFiles):
        def __init__(self):
            self.sweeps = 0

        def try_lock(self, fd):
            if self.sweeps < 3:
                self.sweeps += 1
                with files.using(files.RealFiles()):
                    assert len(atomic.remove_leftovers(tmp_path)) == 1
            return super().try_lock(fd)

    swept = Swept()
    with files.using(swept):
        qm.save(new, tmp_path / "state.qms")
    assert swept.sweeps == 3
    assert qm.load(tmp_path / "state.qms") == new


def test_a_sweep_that_has_locked_the_file_but_not_removed_it_does_not_lose_the_save(tmp_path, new):
    class Racing(files.RealFiles):
        def __init__(self):
            self.held = None

        def try_lock(self, fd):
            if self.held is None:  # another process's sweep has opened and locked it, and is about to remove it
                path = tmp_path / leftovers(tmp_path)[0]
                self.held = os.open(path, os.O_RDONLY)
                assert files.RealFiles().try_lock(self.held)
                self.doomed = path
            return super().try_lock(fd)

        def write(self, fd, data):
            self.doomed.unlink(missing_ok=True)
            return super().write(fd, data)

    racing = Racing()
    with files.using(racing):
        qm.save(new, tmp_path / "state.qms")
    os.close(racing.held)
    assert qm.load(tmp_path / "state.qms") == new


def test_ctrl_c_ends_a_real_save_with_the_old_version_in_place(tmp_path, old):
    path = tmp_path / "state.qms"
    qm.save(old, path)
    code = (
        "import numpy as np, quantum_memory as qm, sys\n"
        "array = np.random.default_rng(0).normal(size=1 << 23)\n"
        "print('go', flush=True)\n"
        f"while True: qm.save(qm.MemoryState(classical=array), {str(path)!r}, compression='zlib')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"go\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in complaint
    assert leftovers(tmp_path) == []
    assert qm.load(path).quantum is None or qm.load(path) == old


def test_processes_that_save_the_same_path_at_once_leave_one_of_them(tmp_path):
    path = tmp_path / "state.qms"
    code = (
        "import numpy as np, quantum_memory as qm, sys\n"
        f"for k in range(40): qm.save({{'metadata': {{'who': sys.argv[1], 'k': k}}}}, {str(path)!r})\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(who)]) for who in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert 0 <= qm.load(path).metadata["k"] < 40
            seen += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen > 0
    assert qm.load(path).metadata["k"] == 39
    assert leftovers(tmp_path) == []


def test_threads_that_create_the_same_path_at_once_make_one_winner(tmp_path):
    path = tmp_path / "state.qms"
    results: list[object] = []
    barrier = threading.Barrier(8)

    def create(who):
        barrier.wait()
        try:
            results.append(qm.save({"metadata": {"who": who}}, path, overwrite=False) and who)
        except qm.ConflictError:
            results.append(None)

    threads = [threading.Thread(target=create, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [who for who in results if who is not None]
    assert qm.load(path).metadata == {"who": winner}
    assert leftovers(tmp_path) == []


def leave_in_a_fork(sink, error):
    """Leave the block of `sink`, as a fork of the process that entered it does, and tell whether that was refused."""

    def leave():
        try:
            sink.__exit__(type(error), error, None)
        except qm.ConflictError:
            os._exit(3)

    return in_child(leave) == 3


@pytest.mark.parametrize("error", [None, ValueError()], ids=["at its end", "by an exception"])
def test_a_fork_that_leaves_the_block_takes_nothing_from_its_parent(tmp_path, error):
    path = tmp_path / "state.qms"
    with DurableFile(path) as sink:
        sink.write(b"half")
        assert leave_in_a_fork(sink, error) == (error is None)
        assert not path.exists()
        assert len(leftovers(tmp_path)) == 1
        assert atomic.remove_leftovers(tmp_path) == []
        sink.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert leftovers(tmp_path) == []


def test_a_block_that_is_never_left_leaves_nothing_once_nobody_has_the_file(tmp_path):
    """As when an interrupt comes between the last line of a block and the first of its end."""
    sink = DurableFile(tmp_path / "state.qms").__enter__()
    sink.write(b"half")

    def let_go():
        nonlocal sink
        del sink

    assert in_child(let_go) == 0
    assert len(leftovers(tmp_path)) == 1  # it is the parent's
    let_go()
    assert names(tmp_path) == []
