"""What is said when the engines below fail: one line, of the right class, and nothing on the standard output."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import pytest
from obstore.store import LocalStore

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, InvalidStateError, StorageError
from quantum_memory.formats.urls import URL

from . import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from .servers import Server

_MIB = 1 << 20


def _amplitudes(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=1 << 18) + 1j * rng.normal(size=1 << 18)).astype(np.complex64)


def _write(url: str, seed: int = 0, n_qubits: int = 18) -> None:
    """Write a state in two chunks, with digests of their own and a small array."""
    begun = qm.transaction(
        url,
        n_qubits=n_qubits,
        dtype="complex64",
        qubit_order="big",
        chunk_bytes=_MIB,
        classical={"w": np.arange(300.0)},
    )
    with begun as tx:
        part = tx.fork()
        part.write(0, _amplitudes(seed)[: 1 << n_qubits])
        tx.merge(part)


def _use(url: str) -> float:
    memory = qm.load(url)
    qm.verify(url)
    return memory.quantum.norm()


def _one_line(error: BaseException, url: str) -> None:
    said = str(error)
    assert "\n" not in said
    assert said.startswith(url)
    assert not re.search(r"icechunk::|at icechunk|Error \{|with key", said), said


_HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("harm", _HARM)
def test_damage_is_damage(url: str, harm: str, s3: Server) -> None:
    _write(url)
    whole, address, kinds = _use(url), URL.parse(url), set()
    store = s3.store(address.key) if address.bucket else LocalStore(address.key)
    for name in sorted(one["path"] for batch in store.list() for one in batch):
        kind = name.partition("/")[0]
        if kind == "refs" and harm == "gone":
            continue  # which is as if there had never been a repository
        data = bytes(store.get(name).bytes())
        harmed = _HARM[harm](data)
        store.delete(name) if harmed is None else store.put(name, harmed)
        try:
            assert _use(url) == whole, name  # it is of no version that is read
        except IntegrityError as error:
            _one_line(error, url)
            kinds.add(kind)
        store.put(name, data)
    assert kinds >= {"chunks", "manifests", "snapshots"}
    assert _use(url) == whole


def test_a_snapshot_that_cannot_be_read_is_no_empty_one(url: str, s3: Server) -> None:
    _write(url)
    snapshot = qm.repository(url).find()
    address = URL.parse(url)
    if address.bucket:
        s3.store(address.key).put(f"snapshots/{snapshot}", b"nothing of that kind")
    else:
        Path(address.key, "snapshots", snapshot).write_bytes(b"nothing of that kind")
    for verb in (qm.load, qm.info, lambda url: qm.save(qm.StateVector([1, 0j], qubit_order="big"), url)):
        with pytest.raises(IntegrityError, match="could not"):
            verb(url)
    assert qm.repository(url).find() == snapshot


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", r"does not exist \(NoSuchBucket\)\. Next: check the address"),
        ("AWS_SECRET_ACCESS_KEY", r"SignatureDoesNotMatch.* Next: check AWS_ACCESS_KEY_ID"),
        ("AWS_ACCESS_KEY_ID", r"InvalidAccessKeyId.* Next: check AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_storage_refuses_is_no_damage(s3: Server, monkeypatch, capfd, name: str, said: str) -> None:
    if name:
        monkeypatch.setenv(name, "wrong")
    url = f"s3://{s3.bucket if name else 'no-such-bucket'}/run"
    for verb in (qm.load, qm.verify, lambda url: qm.save(qm.StateVector([1, 0j], qubit_order="big"), url)):
        with pytest.raises(StorageError, match=said) as caught:
            verb(url)
        _one_line(caught.value, url)
    assert capfd.readouterr().out == ""


_REFUSED = """  x error writing object to object store dispatch failure
  | context:
  |    0: icechunk::storage::s3::write_chunk
  |              at icechunk/src/storage/s3.rs:788
  |-> dispatch failure
  `-> Connection refused (os error 111)
"""


@pytest.mark.parametrize("where", ["quantum_memory.cloud.chunks.Rows.write", "quantum_memory.cloud.chunks.Rows.create"])
def test_a_storage_that_goes_away_while_it_is_written_to(folder_url: str, monkeypatch, where: str) -> None:
    _write(folder_url)
    before = qm.repository(folder_url).find()
    state = qm.StateVector(_amplitudes(1), qubit_order="big")

    def fails(*_: object, **__: object) -> None:
        raise icechunk.IcechunkError(_REFUSED)

    with monkeypatch.context() as patch:
        patch.setattr(where, fails)
        with pytest.raises(StorageError, match=r"could not .*Connection refused") as caught:
            qm.save(state, folder_url)
    _one_line(caught.value, folder_url)
    assert qm.repository(folder_url).find() == before
    _use(folder_url)
    qm.save(state, folder_url)
    assert qm.load(folder_url).quantum == state


def test_a_process_that_was_forked_does_not_wait_for_ever(folder_url: str) -> None:
    _write(folder_url)
    state = qm.load(folder_url).quantum
    state.norm()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        for work in (pool.submit(_use, folder_url), pool.submit(type(state).norm, state)):
            with pytest.raises(InvalidStateError, match="Next: start workers with multiprocessing") as caught:
                work.result(60)
            assert isinstance(caught.value, qm.QuantumMemoryError)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(type(state).norm, state).result(60) == state.norm()


def test_a_fork_of_who_has_only_imported_it_uses_it(folder_url: str) -> None:
    _write(folder_url)
    code = (
        "import multiprocessing, sys, quantum_memory as qm, quantum_memory.cloud.transaction\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    print(*{one['content_id'] for one in pool.map(qm.info, 4 * sys.argv[1:], 1)})\n"
    )
    command = [sys.executable, "-c", code, folder_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == [qm.load(folder_url).content_id], done.stderr


def test_a_panic_below_is_said_in_a_sentence(folder_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(folder_url)
    panic = type("PanicException", (BaseException,), {})

    def panics(*_: object) -> None:
        raise panic("called `Option::unwrap()` on a `None` value")

    repository = qm.repository(folder_url)
    monkeypatch.setattr(type(repository._repository), "lookup_branch", panics)
    with pytest.raises(IntegrityError, match="could not look it up: called") as caught:
        repository.find()
    assert "PanicException" in "".join(traceback.format_exception(caught.value))


def test_an_endpoint_on_which_nobody_listens(s3: Server) -> None:
    """It is asked by us, a few times: Icechunk would go on for half a minute."""
    (port,) = servers.free_ports(1)
    for use in (qm.load, qm.verify, lambda url: qm.CheckpointManager(url, signals=False).resume()):
        with pytest.raises(StorageError, match="nobody answers") as caught:
            use(f"s3://{s3.bucket}/prefix?endpoint=http://127.0.0.1:{port}")
        assert caught.value.next_step == "check the address, the endpoint and the network"
