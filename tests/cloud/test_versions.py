"""What a user does with versions at an address, in a folder and in object storage."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import quantum_memory as qm
from quantum_memory.cloud.repository import Repository
from quantum_memory.errors import ConflictError, InvalidStateError, MissingError, MissingFileError, UnsafeError
from quantum_memory.formats.stored_amplitudes import StoredAmplitudes
from quantum_memory.formats.urls import URL

from .conftest import stored_bytes


def _state(n: int, seed: int = 0, dtype: str = "complex64") -> qm.StateVector:
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=1 << n) + 1j * rng.normal(size=1 << n)
    return qm.StateVector((amplitudes / np.linalg.norm(amplitudes)).astype(dtype), qubit_order="little")


def _memory(seed: int = 0) -> qm.MemoryState:
    rng = np.random.default_rng(seed)
    tree = {"w": rng.normal(size=(700, 333)), "empty": np.zeros((3, 0)), "scalar": np.float32(3), "a/b": [np.arange(3)]}
    return qm.MemoryState(_state(20, seed), tree, {"pad": [0.1, 0.2, 0.3]}, {"seed": seed})


def test_what_is_saved_is_loaded(url: str) -> None:
    memory = _memory()
    saved = qm.save(memory, url)
    assert saved.content_id == memory.content_id
    assert (saved.path, saved.format) == (url, "zarr")
    loaded = qm.load(url)
    assert loaded == memory
    assert loaded.quantum == memory.quantum
    assert qm.verify(url).content_id == memory.content_id
    assert qm.info(url)["quantum"]["norm"] == pytest.approx(1)
    assert qm.compare(url, url).same_content


def test_versions_have_names_and_stay(url: str) -> None:
    first, second = _memory(1), _memory(2)
    qm.save(first, f"{url}@step-1")
    qm.save(second, f"{url}@step-2")
    assert qm.load(url) == second
    assert qm.load(f"{url}@step-1") == first
    repository = Repository(URL.parse(url))
    history = list(repository.history())
    assert [version.tags for version in history] == [("step-2",), ("step-1",)]
    assert [version.parent for version in history] == [history[1].id, None]
    assert qm.load(f"{url}@{history[1].id}") == first
    assert qm.load(f"{url}@main") == second
    assert repository.tags() == {"step-1": history[1].id, "step-2": history[0].id}


def test_a_name_is_given_once(url: str) -> None:
    qm.save(_memory(1), f"{url}@one")
    before = list(Repository(URL.parse(url)).history())
    with pytest.raises(ConflictError, match="there is a version 'one' already"):
        qm.save(_memory(2), f"{url}@one")
    repository = Repository(URL.parse(url))
    assert list(repository.history()) == before
    with pytest.raises(ConflictError, match="tags stay"):
        repository.tag("one", repository.find())
    with pytest.raises(ConflictError, match="there is a branch 'main'"):
        repository.tag("main", repository.find())
    with pytest.raises(ConflictError, match="a tag or a branch 'one'"):
        repository.branch("one", repository.find())
    repository.untag("one")
    with pytest.raises(MissingFileError, match="no tag, branch or snapshot 'one'"):
        qm.load(f"{url}@one")
    with pytest.raises(ConflictError, match="has been one"):
        repository.tag("one", repository.find())
    with pytest.raises(MissingError, match="no tag 'one'"):
        repository.untag("one")


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "é", "x" * 200, "writing-000069271a01-0123456789abcdef"])
def test_what_is_no_name_is_said(folder_url: str, name: str) -> None:
    qm.save(_state(3), folder_url)
    repository = Repository(URL.parse(folder_url))
    with pytest.raises(InvalidStateError, match="cannot be called"):
        repository.tag(name, repository.find())


def test_branches_go_their_own_way(url: str) -> None:
    qm.save(_memory(1), url)
    repository = Repository(URL.parse(url))
    repository.branch("trial", repository.find())
    qm.save(_memory(2), f"{url}@trial")
    assert qm.load(url) == _memory(1)
    assert qm.load(f"{url}@trial") == _memory(2)
    assert set(repository.branches()) == {"main", "trial"}


def test_rollback_goes_back_and_loses_nothing(url: str) -> None:
    qm.save(_memory(1), f"{url}@good")
    qm.save(_memory(2), f"{url}@bad")
    repository = Repository(URL.parse(url))
    repository.rollback(repository.find("good"))
    assert qm.load(url) == _memory(1)
    assert qm.load(f"{url}@bad") == _memory(2)
    qm.save(_memory(3), url)
    assert [version.tags for version in repository.history()] == [(), ("good",)]


def test_only_what_has_changed_is_written(folder_url: str) -> None:
    state = _state(22)
    qm.save(state, folder_url)
    before = stored_bytes(folder_url)
    qm.save(state, folder_url)
    assert stored_bytes(folder_url) == before
    assert len(list(Repository(URL.parse(folder_url)).history())) == 1
    changed = state.amplitudes.copy()
    changed[5] = 0
    qm.save(qm.StateVector(changed, qubit_order="little"), folder_url)
    assert 0 < stored_bytes(folder_url) - before < (8 << 20) + (1 << 16)
    assert qm.load(folder_url).quantum == qm.StateVector(changed, qubit_order="little")


def test_zeros_take_no_room_and_replace_what_was_there(url: str) -> None:
    ghz = np.zeros(1 << 22, np.complex64)
    qm.save(_state(22), url)
    ghz[[0, -1]] = np.sqrt(0.5)
    assert qm.save(qm.StateVector(ghz, qubit_order="big"), url).bytes == 16 << 20
    assert np.array_equal(qm.load(url).quantum.amplitudes, ghz)
    qm.save(_state(22, 1), url)
    assert qm.load(url).quantum == _state(22, 1)
    minus = np.zeros(1 << 21, np.complex64)
    minus.view(np.float32)[:] = -0.0
    qm.save(qm.StateVector(minus, qubit_order="big"), url)
    assert np.signbit(qm.load(url).quantum.amplitudes.view(np.float32)).all()


def test_parts_that_are_gone_are_gone(url: str) -> None:
    qm.save(_memory(), url)
    qm.save(qm.MemoryState(classical={"only": np.arange(5)}), url)
    loaded = qm.load(url)
    assert loaded.quantum is None
    assert list(qm.open(url).arrays) == ["classical/only"]
    assert list(zarr.open_group(Repository(URL.parse(url)).store(Repository(URL.parse(url)).find()), mode="r").groups())


def test_parts_are_read_alone(url: str) -> None:
    memory = _memory()
    qm.save(memory, url)
    with qm.open(url) as file:
        assert np.array_equal(file.amplitudes[1000:1010], memory.quantum.amplitudes[1000:1010])
        assert np.array_equal(file.arrays["classical/w"][3], memory.classical["w"][3])
    assert np.array_equal(qm.load(url, only="w")["w"], memory.classical["w"])
    out = np.empty(1 << 20, np.complex64)
    assert np.shares_memory(qm.load(url, out=out).quantum.amplitudes, out)
    assert np.array_equal(out, memory.quantum.amplitudes)


def test_plain_zarr_reads_the_amplitudes(url: str) -> None:
    state = _state(22)
    qm.save(state, url)
    repository = Repository(URL.parse(url))
    plain = zarr.open_array(repository.store(repository.find()), path="quantum/amplitudes", mode="r")
    assert np.array_equal(plain[...], state.amplitudes)


def test_packed_states_are_certified_as_in_a_file(url: str) -> None:
    state = _state(16, dtype="complex128")
    saved = qm.save(state, url, fidelity=0.999)
    assert saved.infidelity is not None
    assert saved.bytes < state.nbytes / 4
    loaded = qm.load(url).quantum
    assert qm.metrics.fidelity(loaded, state) >= 0.999
    assert qm.info(url)["compression"]["certificate"]["infidelity"] == saved.infidelity


def test_a_memory_goes_from_a_file_and_back(url: str, tmp_path) -> None:
    memory = _memory()
    qm.save(memory, tmp_path / "one.qms")
    assert qm.convert(tmp_path / "one.qms", url).content_id == memory.content_id
    assert qm.convert(url, tmp_path / "two.h5").content_id == memory.content_id
    assert qm.load(tmp_path / "two.h5") == memory
    with pytest.raises(ConflictError, match="there is a memory already"):
        qm.convert(tmp_path / "one.qms", url)
    assert qm.convert(tmp_path / "one.qms", url, overwrite=True).content_id == memory.content_id


def test_a_large_state_goes_to_a_file_run_by_run(folder_url: str, tmp_path, monkeypatch) -> None:
    state = _state(22)
    qm.save(state, folder_url)
    monkeypatch.setattr(StoredAmplitudes, "read_all", lambda self, out: pytest.fail("all of it is read at once"))
    for suffix in ("qms", "h5"):
        converted = qm.convert(folder_url, tmp_path / f"x.{suffix}")
        assert converted.content_id == qm.MemoryState(state).content_id
        assert qm.load(tmp_path / f"x.{suffix}").quantum == state


def test_a_second_save_may_be_refused(url: str) -> None:
    qm.save(_memory(1), url)
    with pytest.raises(ConflictError, match="there is a memory already"):
        qm.save(_memory(2), url, overwrite=False)
    assert qm.load(url) == _memory(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encrypt": "words"}, "cannot be encrypted"),
        ({"compression": "zstd"}, "no compression 'zstd'"),
        ({"max_bytes": 100}, "max_bytes is for files"),
    ],
)
def test_what_there_is_not_is_said(folder_url: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidStateError, match=said):
        qm.save(_state(3), folder_url, **options)
    with pytest.raises(MissingFileError):
        qm.load(folder_url)


def test_what_is_not_there_is_said(url: str) -> None:
    with pytest.raises(MissingFileError, match="there is no repository"):
        qm.load(url)
    qm.save(_state(3), url)
    with pytest.raises(MissingFileError, match="no tag, branch or snapshot 'nothing'"):
        qm.load(f"{url}@nothing")
    with pytest.raises(InvalidStateError, match="not encrypted"):
        qm.load(url, key="words")
    with pytest.raises(InvalidStateError, match="give the version as"):
        qm.load(url, state_id="a")
    with pytest.raises(InvalidStateError, match="cannot be mapped"):
        qm.load(url, mmap=True)


def test_storage_that_ignores_conditions_is_refused(s3, careless: str, monkeypatch) -> None:
    url = f"s3://qmem/refused?endpoint={careless}"
    with pytest.raises(UnsafeError, match=r"does not keep two writers apart: .*If-None-Match is ignored") as caught:
        qm.save(_state(3), url)
    assert caught.value.exit_code == 9
    assert "QMEM_SINGLE_WRITER" in str(caught.value)
    monkeypatch.setenv("QMEM_SINGLE_WRITER", "1")
    qm.save(_state(3), url)
    assert qm.load(url).quantum == _state(3)


def test_nobody_answers(s3, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(qm.StorageError, match="could not") as caught:
        qm.load("s3://qmem/x")
    assert "s3://qmem/x" in str(caught.value)
    assert "\n" not in str(caught.value)
