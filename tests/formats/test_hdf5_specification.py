"""The decoder that the specification of HDF5 stores prints, which knows h5py and nothing of this package."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.state.document import state_from_node

PAGE = Path(__file__).parents[2] / "docs" / "storage_architecture.md"


@pytest.fixture(scope="module")
def page():
    """What the page defines, as it stands there."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    imported = set(re.findall(r"^(?:import|from) (.+)$", code, re.MULTILINE))
    assert imported == {"hashlib, json, struct", "h5py", "numpy as np"}
    space = {}
    exec(compile(code, str(PAGE), "exec"), space)  # it is our own page
    return space


@pytest.fixture
def memory():
    rng = np.random.default_rng(0)
    state = qm.StateVector(rng.standard_normal(2**17) + 1j * rng.standard_normal(2**17), qubit_order="little")
    tree = {
        "flat": np.repeat(np.arange(300_001), 3),  # more than one chunk, not a multiple of anything
        "matrix": rng.standard_normal((70, 90)).astype(np.complex64),
        "short": np.array(7.5),
        "bool": np.array([True, False]),
        "none": np.empty((0, 3), np.int16),
        "": {".": np.arange(3)},
        1: {"x": np.arange(4)},
        "1": np.arange(5),
        "text": np.array(["ü", "b"]),
        2: [1e22, 1e-7, -0.0, (2**70, None)],
    }
    return qm.MemoryState(state, tree, {"pad": [0.1, 0.2, 0.3]}, {"who": "m", "array": np.arange(2)})


@pytest.mark.parametrize("compression", ["gzip", "lzf", "szip", None])
def test_the_decoder_reads_every_compression_of_h5py(page, memory, compression, tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5", compression)
    storage.save_quantum_state(memory, "a")
    storage.save_quantum_state(np.ones(4) / 2, "deleted")
    storage.save_quantum_state(np.ones(8) / 8**0.5, "b")
    storage.delete_state("deleted")
    with page["open_store"](storage.path) as root:
        document, record, arrays, content = page["read_state"](root, "a")
        assert page["read_state"](root, "b")[3] == qm.verify(storage.path, state_id="b").content_id
    assert content == memory.content_id
    assert record["writer"].startswith("quantum-memory ")
    flat = memory.flatten()
    assert document == flat.document
    assert {path: (a.dtype, a.shape, a.tobytes()) for path, a in arrays.items()} == {
        path: (a.dtype, a.shape, a.tobytes()) for path, a in flat.arrays.items()
    }
    node = document["quantum_data"]["$state"]
    assert state_from_node(node, lambda named: arrays[named["$array"]]) == memory.quantum


def test_it_reads_what_save_writes(page, memory, tmp_path):
    saved = qm.save(memory, tmp_path / "x.h5")
    with page["open_store"](saved.path) as root:
        assert list(root["quantum_states"]) == ["state"]
        assert page["read_state"](root, "state")[3] == saved.content_id


def test_it_reads_time_series(page, tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5")
    psi = qm.StateVector(np.ones(4) / 2, qubit_order="big")
    for start in (0, 3):  # two blocks
        for name, sample in (("pad", (0.1, 0.2, 0.3)), ("states", psi), ("records", {"n": (start, None)})):
            with storage.time_series(name) as series:
                for step in range(start, start + 3):
                    series.append(sample, time=step if name == "records" else None)
    with page["open_store"](storage.path) as root:
        about, values, times = page["read_series"](root, "pad")
        assert (about, values.tolist(), times) == ({"facts": {}, "kind": "array"}, [[0.1, 0.2, 0.3]] * 6, None)
        about, values, _ = page["read_series"](root, "states")
        assert about == {"facts": {"dims": [2, 2], "qubit_order": "big"}, "kind": "state"}
        assert values.shape == (6, 4)
        about, values, times = page["read_series"](root, "records")
        assert values == [{"n": {"$tuple": [start, None]}} for start in (0, 0, 0, 3, 3, 3)]
        assert times.tolist() == [0, 1, 2, 3, 4, 5]


def _flip_dataset(file, name):
    dataset = file[name]
    items = dataset[()]
    raw = bytearray(items.tobytes())
    raw[len(raw) // 2] ^= 1
    dataset[()] = np.frombuffer(raw, items.dtype).reshape(items.shape)


@pytest.mark.parametrize("name", ["quantum_data/amplitudes", "classical_data/short", "digests", "metadata"])
def test_it_notices_damage_of_a_state(page, memory, name, tmp_path):
    path = qm.save(memory, tmp_path / "x.h5").path
    with h5py.File(path, "r+") as file:
        _flip_dataset(file["quantum_states/state"], name)
    with page["open_store"](path) as root, pytest.raises(AssertionError):
        page["read_state"](root, "state")


@pytest.mark.parametrize("name", ["values", "time", "blocks"])
def test_it_notices_damage_of_a_series(page, name, tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5")
    with storage.time_series("pad") as series:
        for step in range(5):
            series.append((0.1, 0.2, 0.3), time=step)
    with h5py.File(storage.path, "r+") as file:
        _flip_dataset(file["time_series/pad"], name)
    with page["open_store"](storage.path) as root, pytest.raises(AssertionError):
        page["read_series"](root, "pad")


def test_it_refuses_what_is_not_whole(page, memory, tmp_path):
    path = Path(qm.save(memory, tmp_path / "x.h5").path)
    whole = path.read_bytes()
    for broken, says in (
        (whole[:-1], "cut short"),
        (whole[:40], "cut short"),
        (whole + b"QMREDO1\n" + bytes(56), "interrupted"),
        (b"x" + whole[1:], "cut short"),
    ):
        path.write_bytes(broken)
        with pytest.raises(AssertionError, match=says):
            page["open_store"](path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["quantum_states"].copy("state", "another")
    with pytest.raises(AssertionError, match="index"):
        page["open_store"](path)


def test_the_index_is_as_the_page_says(page, memory, tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5")
    storage.save_quantum_state(memory, "a")
    with page["open_store"](storage.path) as root:
        index = root["index/chronological"]
        assert index.dtype.itemsize == 156
        said = re.search(r"### The index\n(.*?)\n###", PAGE.read_text(), re.DOTALL)[1]
        fields = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", said, re.MULTILINE)))
        assert list(index.dtype.names) == fields
        row = index[0]
        assert (row["kind"], row["sites"]) == (b"state_vector", 17)
        text = json.loads(bytes(root["quantum_states/a/metadata"][()]))
        assert row["raw_bytes"] == sum(
            np.dtype(page["TYPES"][node["dtype"]]).itemsize * int(np.prod(node["shape"], dtype=int))
            for node in text["arrays"].values()
        )
