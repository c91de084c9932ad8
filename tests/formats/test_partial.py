"""Files as memory: mapped and not copied, private, checked; and open files of which one site or one slice is read."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import IntegrityError, InvalidStateError, UnsafeError
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.testing.damage import flip_bit
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import RecordingFiles

MIB = 1 << 20


def resident(address, length):
    """Return how many bytes of a range of this process's memory are anonymous: copies, and not the file."""
    first, last = address, address + length
    anonymous, inside = 0, False
    with Path("/proc/self/smaps").open() as lines:
        for line in lines:
            head = line.split()
            if "-" in head[0] and not head[0].endswith(":"):
                start, stop = (int(part, 16) for part in head[0].split("-"))
                inside = start < last and first < stop
            elif inside and head[0] == "Anonymous:":
                anonymous += 1024 * int(head[1])
    return anonymous


@pytest.fixture
def weights():
    rng = np.random.default_rng(1)
    return {
        "a": rng.standard_normal((700, 300)), "b": rng.standard_normal(5).astype(np.float32),
        "c": np.arange(7, dtype="u1"), "d": np.asfortranarray(rng.standard_normal((3, 4))), "none": np.empty((0, 2)),
        "bf16": torch.ones(9).bfloat16(),
    }  # fmt: skip


@pytest.fixture
def path(tmp_path, weights):
    path = tmp_path / "weights.qms"
    qm.save(qm.MemoryState(np.array([0.6, 0.8j]), weights), path, compression="none", durable=False)
    return path


def test_a_mapped_memory_is_that_of_the_file_and_not_a_copy(path, weights):
    memory = qm.load(path, mmap=True)
    assert_identical(weights, memory.classical)
    assert memory.content_id == qm.load(path).content_id
    array = memory.classical["a"]
    address = array.ctypes.data
    assert resident(address, array.nbytes) == 0
    array[0, 0] = 5
    assert 0 < resident(address, array.nbytes) <= 16 * 4096  # a page of its own, and no more


def test_it_is_aligned_writable_and_taken_by_torch_without_a_copy(path):
    memory = qm.load(path, mmap=True)
    arrays = [memory.quantum.amplitudes, *(memory.classical[name] for name in "abcd")]
    for array in arrays:
        assert array.ctypes.data % 64 == 0
        assert array.flags.aligned
        assert array.flags.writeable
        tensor = torch.from_numpy(array)  # a warning would be an error here
        assert tensor.data_ptr() == array.ctypes.data
    assert memory.classical["bf16"].data_ptr() % 64 == 0


def test_it_is_private(path, weights):
    before = path.read_bytes()
    first, second = qm.load(path, mmap=True), qm.load(path, mmap=True)
    first.classical["a"][:] = 0
    first.classical["bf16"].zero_()
    assert not np.shares_memory(first.classical["a"], second.classical["a"])
    assert_identical(weights, second.classical)
    assert_identical(weights, qm.load(path).classical)
    assert path.read_bytes() == before


def test_it_stays_when_the_file_is_replaced_or_removed(path, weights):
    memory = qm.load(path, mmap=True)
    qm.save({"metadata": {"new": 1}}, path, durable=False)
    assert_identical(weights, memory.classical)
    path.unlink()
    assert_identical(weights, memory.classical)


@pytest.mark.parametrize("place", ["a", "c", "trailer", "table", "padding"])
def test_damage_is_noticed_before_anything_is_given_away(path, place):
    with qm.open(path) as file:
        entries = file._reader.entries
        offsets = {name: entries[f"classical/{name}"].offset for name in "ac"}
        padding = offsets["c"] + 7
    size = path.stat().st_size
    offset = {**offsets, "trailer": size - 9, "table": size - 80, "padding": padding}[place]
    path.write_bytes(flip_bit(path.read_bytes(), 8 * offset))
    with pytest.raises(IntegrityError):
        qm.load(path, mmap=True)


@pytest.mark.parametrize("verify", ["fast", "full"])
def test_what_is_packed_is_read_and_the_rest_mapped(tmp_path, verify):
    noise = np.random.default_rng(2).standard_normal(1000)
    tree = {"zeros": np.zeros(1 << 18), "noise": noise}
    path = tmp_path / "mixed.qms"
    qm.save(tree, path, compression="zstd", durable=False)
    done: list[int] = []
    memory = qm.load(path, mmap=True, verify=verify, progress=done.append)
    assert_identical(tree, memory.classical)
    assert sum(done) == (8 << 18) + 8000
    if qm.info(path)["sections"][0]["codecs"] == ["none"]:
        assert resident(memory.classical["noise"].ctypes.data, 8000) == 0


def test_mapping_excludes_out_and_text(path, tmp_path):
    with pytest.raises(InvalidStateError, match="exclude"):
        qm.load(path, mmap=True, out=bytearray(32))
    qm.save({"w": np.zeros(3)}, tmp_path / "state.json", durable=False)
    with pytest.raises(InvalidStateError, match="cannot be mapped") as caught:
        qm.load(tmp_path / "state.json", mmap=True)
    assert caught.value.next_step


def test_one_array_of_an_open_file_is_mapped(path, weights):
    with qm.open(path) as file:
        array = file.arrays["classical/a"].map()
    assert_identical(weights["a"], array)
    assert array.ctypes.data % 64 == 0


CHILD = """
import json, sys
import numpy as np, quantum_memory as qm
path = sys.argv[1]
def anonymous():
    return 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
qm.save(np.ones(4), path + ".warm.qms"); qm.load(path + ".warm.qms", mmap=True)
before = anonymous()
memory = qm.load(path, mmap=True)
first = float(memory.quantum.amplitudes[-1].real)
print(json.dumps([anonymous() - before, first]))
"""


def test_a_large_state_takes_next_to_no_memory(tmp_path):
    path = tmp_path / "large.qms"
    state = np.empty(1 << 24, np.complex128)
    state[:] = np.random.default_rng(0).standard_normal(1 << 12).repeat(2).view(np.complex128).repeat(1 << 12)
    qm.save(qm.StateVector(state, qubit_order="big"), path, compression="none", durable=False)
    last = float(state[-1].real)
    del state
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    path.unlink()
    grown, found = json.loads(done.stdout)
    assert found == last
    assert grown < 32 * MIB


# ---- one site, one slice


@pytest.fixture
def chain(tmp_path):
    rng = np.random.default_rng(3)
    bonds = [1, *[128] * 11, 1]
    chain = qm.MatrixProductState(
        [rng.standard_normal((bonds[k], 2, bonds[k + 1])).astype(np.complex128) for k in range(12)]
    )
    path = tmp_path / "chain.qms"
    qm.save(chain, path, compression="none", durable=False)
    return chain, path


def test_a_site_is_read_without_the_others(chain):
    state, path = chain
    recording = RecordingFiles()
    with files.using(recording), qm.open(path) as file:
        opened = recording.bytes_read
        site = file.arrays["quantum/site/5"]
        assert site.shape == (128, 2, 128)
        assert_identical(state.tensors[5][3], site[3])
        assert_identical(state.tensors[5][:, 1], site[:, 1])
        assert recording.bytes_read - opened == site.nbytes == 128 * 2 * 128 * 16  # one chunk, once
        assert opened < 16 << 10


def test_rows_of_a_site_of_many_chunks_read_their_chunks_only(tmp_path):
    first, second = np.ones((1, 2, 512)), np.random.default_rng(4).standard_normal((512, 1024, 1))
    path = tmp_path / "wide.qms"
    qm.save(qm.MatrixProductState([first, second]), path, compression="none", durable=False)
    recording = RecordingFiles()
    with files.using(recording), qm.open(path) as file:
        opened, site = recording.bytes_read, file.arrays["quantum/site/1"]
        assert_identical(second[200:203], site[200:203])
        assert recording.bytes_read - opened == CHUNK_BYTES
        assert_identical(second[7], site[np.array(7)])


@pytest.mark.parametrize("suffix", [".qms", ".h5", ".json"])
def test_a_closed_file_says_so(tmp_path, suffix):
    path = tmp_path / f"state{suffix}"
    qm.save(np.eye(1, 4)[0], path)
    with qm.open(path) as file:
        amplitudes = file.amplitudes
    file.close()
    for read in (lambda: amplitudes[:2], lambda: file.amplitudes, file.load, file.info, lambda: file.select("*")):
        with pytest.raises(InvalidStateError, match="has been closed"):
            read()
    assert "state_vector, 1 arrays" in repr(file)


def test_an_id_is_for_stores(tmp_path):
    qm.save(np.eye(1, 4)[0], tmp_path / "state.qms")
    for verb in (qm.load, qm.open, qm.info, qm.verify):
        with pytest.raises(InvalidStateError, match="which has no id"):
            verb(tmp_path / "state.qms", state_id="x")


def test_long_text_is_read_by_every_verb_when_it_may_be(tmp_path):
    path = tmp_path / "state.json"
    qm.save(np.ones(1 << 21), path, max_text_bytes=1 << 26)
    for verb in (qm.load, qm.open, qm.info, qm.verify):
        with pytest.raises(UnsafeError, match="give max_bytes"):
            verb(path)
        verb(path, max_bytes=1 << 26)
