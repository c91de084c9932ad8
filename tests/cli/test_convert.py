"""A memory in another format: checked before it has its name, and whatever goes wrong leaves what was there."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import BudgetError, ConflictError, IntegrityError, InvalidStateError, StorageError
from quantum_memory.formats import binary_format
from quantum_memory.formats.prepared import Prepared
from quantum_memory.testing.damage import flip_bit
from quantum_memory.testing.faults import FaultyFiles, PassingFiles, RecordingFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    Qmem = Callable[..., subprocess.CompletedProcess[str]]

SUFFIXES = ("qms", "json", "json.zlib")


# ---- the function


@pytest.mark.parametrize("there", SUFFIXES)
@pytest.mark.parametrize("back", SUFFIXES)
def test_the_content_is_the_same_in_every_format(bell: Path, tmp_path: Path, there: str, back: str) -> None:
    before = bell.read_bytes()
    first = qm.convert(bell, tmp_path / f"first.{there}")
    second = qm.convert(first.path, tmp_path / f"second.{back}")
    assert qm.load(second.path) == qm.load(bell)
    assert first.content_id == second.content_id == qm.load(bell).content_id
    assert (second.source, second.source_format, second.format) == (first.path, there, back)
    sizes = {Path(done.path): done.bytes for done in (first, second)}
    assert second.source_bytes == first.bytes
    assert all(path.stat().st_size == size for path, size in sizes.items())
    assert bell.read_bytes() == before


def test_a_target_that_exists_is_kept_unless_told_otherwise(bell: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_bytes(b"precious")
    with pytest.raises(ConflictError) as caught:
        qm.convert(bell, target)
    assert "overwrite" in (caught.value.next_step or "")
    assert target.read_bytes() == b"precious"
    qm.convert(bell, target, overwrite=True)
    assert qm.load(target) == qm.load(bell)


def test_the_source_is_never_the_target(bell: Path, tmp_path: Path) -> None:
    before = bell.read_bytes()
    for name, make in (("hard.qms", os.link), ("soft.qms", os.symlink)):
        make(bell, tmp_path / name)
        for target in (bell, tmp_path / name):
            with pytest.raises(InvalidStateError, match="it is the file that is to be converted"):
                qm.convert(bell, target, overwrite=True)
    assert bell.read_bytes() == before


def test_what_cannot_be_done_leaves_what_was_there(bell: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    qm.save({"metadata": {"old": 1}}, target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for wrong, options in (
        (tmp_path / "state.txt", {}), (target, {"compression": "lz4"}), (target, {"max_text_bytes": 10}),
    ):  # fmt: skip
        with pytest.raises(InvalidStateError):
            qm.convert(bell, wrong, overwrite=True, **options)
    damaged = tmp_path / "damaged.qms"
    damaged.write_bytes(flip_bit(bell.read_bytes(), 8 * 70))
    with pytest.raises(IntegrityError) as caught:
        qm.convert(damaged, target, overwrite=True)
    assert caught.value.path == str(damaged)
    damaged.unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_was_written_wrongly_gets_no_name(
    bell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """A format that loses something, as no format does."""
    target = tmp_path / "target.qms"
    if overwrite:
        target.write_bytes(b"precious")
    write = binary_format.write_memory

    def forgetful(sink: object, memory: Prepared, *options: object) -> str:
        return write(sink, Prepared.plain(qm.MemoryState(metadata={"lost": "all"})), *options)

    monkeypatch.setattr(binary_format, "write_memory", forgetful)
    with pytest.raises(IntegrityError, match="what was written is not what was read") as caught:
        qm.convert(bell, target, overwrite=overwrite)
    assert caught.value.path == str(target)
    assert target.exists() is overwrite
    assert not overwrite or target.read_bytes() == b"precious"
    assert list(tmp_path.glob(".*")) == []


class TornFiles(PassingFiles):
    """Changes one bit of everything that is written."""

    def write(self, fd: int, data: files.Buffer) -> int:
        return super().write(fd, flip_bit(bytes(data), 3))


def test_a_disk_that_changes_what_is_written_is_noticed(bell: Path, tmp_path: Path) -> None:
    with files.using(TornFiles()), pytest.raises(IntegrityError, match="what was written is not what was read"):
        qm.convert(bell, tmp_path / "target.qms")
    assert not (tmp_path / "target.qms").exists()


def test_every_call_that_fails_leaves_the_old_or_the_new(bell: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    old, new = qm.MemoryState(classical=1), qm.load(bell)
    for call in range(200):
        qm.save(old, target, durable=False)
        faulty = FaultyFiles(call, errno.EIO)
        with files.using(faulty):
            try:
                done = qm.convert(bell, target, overwrite=True)
            except StorageError:
                done = None
        found = qm.load(target)
        assert found == new if done else found in (old, new)
        if not faulty.failed:
            assert done
            return
    raise AssertionError("more calls than there should be")


def test_it_is_durable_by_the_rules(bell: Path, tmp_path: Path) -> None:
    recording = RecordingFiles()
    with files.using(recording):
        qm.convert(bell, tmp_path / "target.json")
    assert recording.violations() == []


def test_progress_is_that_of_two_passes_and_of_the_check(tmp_path: Path) -> None:
    source = tmp_path / "source.qms"
    qm.save(np.ones(1 << 18), source, durable=False)
    done: list[int] = []
    checked: list[int] = []
    qm.convert(source, tmp_path / "target.qms", progress=done.append, check_progress=checked.append)
    assert 2 * (8 << 18) <= sum(done) < 2 * (8 << 18) + 4096  # the document is counted, too
    assert 8 << 18 <= sum(checked) < (8 << 18) + 4096


def test_what_cannot_be_mapped_is_bounded(tmp_path: Path) -> None:
    source = tmp_path / "zeros.qms"
    qm.save(np.zeros(1 << 18), source, compression="zstd", durable=False)
    with pytest.raises(BudgetError):
        qm.convert(source, tmp_path / "target.qms", max_bytes=1000)
    qm.save(np.zeros(1 << 18), source, compression="none", durable=False)
    qm.convert(source, tmp_path / "target.qms", max_bytes=1000)


CHILD = """
import sys
import numpy as np, quantum_memory as qm
source, target = sys.argv[1:]
def anonymous():
    return 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
qm.save(np.ones(4), source + ".warm.qms"); qm.convert(source + ".warm.qms", source + ".warm2.qms")
before, most = anonymous(), []
look = lambda done: most.append(anonymous()) if done else None
qm.convert(source, target, compression="none", durable=False, progress=look, check_progress=look)
print(max(most) - before)
"""


def test_a_large_state_does_not_need_its_size(tmp_path: Path) -> None:
    source, target = tmp_path / "large.qms", tmp_path / "target.qms"
    qm.save(qm.StateVector(np.ones(1 << 24), qubit_order="big"), source, compression="none", durable=False)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, source, target], capture_output=True, text=True, check=True, timeout=120
    )
    source.unlink()
    target.unlink()
    assert int(done.stdout) < 32 << 20


# ---- the verb


def test_it_says_sizes_ratio_and_name_in_one_line(qmem: Qmem, bell: Path, tmp_path: Path) -> None:
    done = qmem("convert", bell, tmp_path / "bell.json", columns=80)
    assert (done.returncode, done.stderr) == (0, "")
    (said,) = done.stdout.splitlines()
    sizes = f"{bell.stat().st_size:,} B qms to {(tmp_path / 'bell.json').stat().st_size:,} B json"
    assert said.startswith(f"{tmp_path}/bell.json: {sizes}, ratio 0.")
    assert said.endswith(f"same content (id {qm.load(bell).content_id[:12]})")


def test_json_says_it_all(qmem: Qmem, bell: Path, tmp_path: Path) -> None:
    done = qmem("convert", "--json", "--compression", "zstd", bell, tmp_path / "other.qms")
    assert json.loads(done.stdout) == {
        "source": str(bell), "source_format": "qms", "source_bytes": bell.stat().st_size,
        "path": str(tmp_path / "other.qms"), "format": "qms", "bytes": (tmp_path / "other.qms").stat().st_size,
        "content_id": qm.load(bell).content_id, "notes": [],
    }  # fmt: skip


def test_each_failure_has_its_code(qmem: Qmem, bell: Path, damaged: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    for code, arguments in (
        (2, (bell,)), (2, (bell, bell, "--overwrite")), (2, (bell, tmp_path / "target.txt")),
        (2, (bell, target, "--compression", "no such")), (4, (damaged, target)), (6, (tmp_path / "none.qms", target)),
        (6, (bell, tmp_path / "nowhere" / "target.qms")), (7, (bell, damaged)),
    ):  # fmt: skip
        done = qmem("convert", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr
    assert not target.exists()
    assert qmem("convert", bell, damaged, "--overwrite").returncode == 0
    assert qm.load(damaged) == qm.load(bell)


def test_two_bars_on_a_terminal_and_the_line(program: Path, tmp_path: Path) -> None:
    source = tmp_path / "state.qms"
    qm.save(qm.StateVector(np.ones(1 << 23), qubit_order="big"), source, compression="none", durable=False)
    terminal, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    running = subprocess.Popen(
        [program, "convert", source, tmp_path / "target.qms"], stdout=subprocess.PIPE, stderr=side, env=environment
    )
    os.close(side)
    drawn = b""
    try:
        while part := os.read(terminal, 4096):
            drawn += part
    except OSError:  # Linux: the other side is closed
        pass
    said, _ = running.communicate(timeout=60)
    os.close(terminal)
    assert running.returncode == 0
    assert b"same content" in said
    assert b"convert" in drawn
    assert b"check" in drawn
    assert all(len(line) <= 80 for line in said.decode().splitlines() if str(tmp_path) not in line)
