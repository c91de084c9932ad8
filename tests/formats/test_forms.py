"""Arrays in a form are in every format what they are without one: whole, checked, and the same content."""

import json
import threading
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from benchmarks import families
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.compression.forms import base
from quantum_memory.compression.forms.uniform import Uniform
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    QuantumMemoryError,
    StorageError,
)
from quantum_memory.formats import packing
from quantum_memory.formats.form_nodes import Forms
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import WholeEntry
from quantum_memory.formats.registry import SaveOptions, format_named
from quantum_memory.state.arrays import array_digest
from quantum_memory.state.document import ArrayIdentity
from quantum_memory.testing.damage import flip_bit

SUFFIXES = ("qms", "h5", "json", "json.zlib", "msgpack", "npz", "pkl", "b64")
LOSSLESS = ("ghz", "product", "graph", "qaoa1", "dicke", "haar")


def vector(name: str, n: int = 10, dtype: Any = np.complex128) -> qm.StateVector:
    return qm.StateVector(families.state(name, n, dtype), qubit_order="little")


def density(name: str, q: int = 5) -> qm.DensityMatrix:
    return qm.DensityMatrix(families.state(name, 2 * q).reshape(2**q, 2**q), qubit_order="big")


def load(path: Path, **options: Any) -> qm.MemoryState:
    return qm.load(path, allow_pickle=True, **options)


def facts(path: Path) -> dict[str, Any]:
    return qm.info(path, allow_pickle=True)["compression"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", LOSSLESS)
def test_without_loss_nothing_changes_but_the_length(tmp_path: Path, name: str, suffix: str) -> None:
    state = qm.MemoryState(vector(name), classical={"w": np.arange(5)}, metadata={"run": 3})
    path = tmp_path / f"state.{suffix}"
    saved = qm.save(state, path, effort="max")
    assert load(path) == state
    assert load(path, verify="full") == state
    assert saved.content_id == state.content_id == qm.verify(path, allow_pickle=True).content_id
    described = facts(path)
    assert described["representation"] != "dense"
    assert "certificate" not in described
    assert load(path).record["norm"] == pytest.approx(1, abs=1e-12)
    with qm.open(path, allow_pickle=True) as file:
        assert file.amplitudes[5:9].tobytes() == state.quantum.amplitudes[5:9].tobytes()
        assert file.amplitude("0" * 10) == state.quantum.amplitudes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["haar", "rqc4"])
def test_with_loss_the_certificate_holds_and_is_in_the_file(tmp_path: Path, name: str, suffix: str) -> None:
    state, path = vector(name), tmp_path / f"state.{suffix}"
    saved = qm.save(state, path, fidelity=1 - 1e-6)
    loaded = load(path)
    lost = 1 - qm.metrics.fidelity(loaded.quantum, state)
    certificate = facts(path)["certificate"]
    assert lost <= certificate["infidelity"] <= 1e-6
    assert certificate["original_sha256"] == array_digest(state.amplitudes).hex()
    assert saved.content_id == qm.verify(path, allow_pickle=True).content_id
    # Of what another machine unpacks a little differently no norm is noted.
    assert loaded.record.get("norm", 1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("source", "target"), list(permutations(("qms", "h5", "msgpack", "npz", "b64"), 2)))
@pytest.mark.parametrize("name", ["haar", "rqc4"])
def test_conversion_takes_what_was_lost_with_its_certificate(
    tmp_path: Path, name: str, source: str, target: str
) -> None:
    before, after = tmp_path / f"a.{source}", tmp_path / f"b.{target}"
    saved = qm.save(vector(name), before, fidelity=0.9999)
    assert qm.convert(before, after).content_id == saved.content_id == qm.verify(after).content_id
    assert facts(after)["certificate"] == facts(before)["certificate"]
    assert load(after) == load(before)


def test_what_a_form_gives_back_exactly_has_the_name_of_what_it_gives_back(tmp_path: Path) -> None:
    saved = qm.save(vector("haar"), tmp_path / "a.qms", fidelity=0.9999)
    loaded = load(tmp_path / "a.qms")
    assert saved.content_id == loaded.content_id == qm.save(loaded, tmp_path / "b.qms").content_id


def test_a_product_is_named_by_its_factors(tmp_path: Path) -> None:
    saved = qm.save(vector("rqc4"), tmp_path / "a.qms", fidelity=0.9999)
    assert facts(tmp_path / "a.qms")["representation"] == "mps"
    assert saved.content_id != load(tmp_path / "a.qms").content_id


@pytest.mark.parametrize("suffix", ["qms", "h5", "msgpack"])
@pytest.mark.parametrize("name", ["dm_ghz", "dm_pure", "dm_noisy", "dm_thermal"])
def test_density_matrices_are_certified_by_the_fidelity_of_uhlmann(tmp_path: Path, name: str, suffix: str) -> None:
    rho, path = density(name), tmp_path / f"rho.{suffix}"
    qm.save(rho, path, effort="balanced")
    assert load(path).quantum == rho
    qm.save(rho, path, fidelity=0.999)
    found = load(path).quantum
    certificate = facts(path).get("certificate")
    if certificate is not None:
        assert "sqrt" in certificate["definition"]
    assert 1 - qm.metrics.fidelity(rho, found) <= (1e-3 if certificate is None else certificate["infidelity"]) + 1e-9


@pytest.mark.parametrize("limit", [3_000, 8_000, 20_000])
def test_a_file_of_at_most_so_many_bytes(tmp_path: Path, limit: int) -> None:
    saved = qm.save(vector("haar", 12), tmp_path / "a.qms", max_bytes=limit)
    assert saved.bytes == (tmp_path / "a.qms").stat().st_size
    assert 0.8 * limit <= saved.bytes <= limit
    assert facts(tmp_path / "a.qms")["certificate"]["infidelity"] < 0.5
    qm.save(vector("haar", 12), tmp_path / "a.qms", max_bytes=1 << 20)
    assert "certificate" not in facts(tmp_path / "a.qms")


def test_what_does_not_fit_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.qms"
    qm.save(vector("ghz"), path)
    before = path.read_bytes()
    with pytest.raises(InvalidStateError, match="does not fit"):
        qm.save(vector("haar", 12), path, max_bytes=500)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"fidelity": 0},
        {"fidelity": 1.1},
        {"fidelity": float("nan")},
        {"fidelity": "high"},
        {"max_bytes": -1},
        {"max_bytes": 1.5},
        {"effort": "most"},
        {"fidelity": 0.9, "max_bytes": 100},
        {"fidelity": 0.9, "compression": "zstd"},
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidStateError):
        qm.save(vector("haar"), tmp_path / "a.qms", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_has_no_fidelity_is_refused(tmp_path: Path, value: float) -> None:
    amplitudes = families.state("haar", 10).copy()
    amplitudes[3] = value
    with pytest.raises(InvalidStateError):
        qm.save(qm.StateVector(amplitudes, qubit_order="big"), tmp_path / "a.qms", fidelity=0.9)


def test_every_bit_is_a_fidelity_of_one(tmp_path: Path) -> None:
    qm.save(vector("haar"), tmp_path / "a.qms", fidelity=1)
    assert load(tmp_path / "a.qms").quantum == vector("haar")


def test_without_being_asked_only_qms_packs(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        qm.save(vector("ghz"), tmp_path / f"a.{suffix}")
        assert facts(tmp_path / f"a.{suffix}")["representation"] == ("stabilizer" if suffix == "qms" else "dense")
    qm.save(vector("ghz"), tmp_path / "a.qms", compression="none")
    assert facts(tmp_path / "a.qms")["representation"] == "dense"


@pytest.mark.parametrize("options", [{"effort": "max"}, {"fidelity": 0.99}])
@pytest.mark.parametrize("name", ["ghz", "rqc4", "haar"])
def test_every_damage_is_found(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = tmp_path / "a.qms"
    qm.save(vector(name, 8), path, **options)
    whole = path.read_bytes()
    for position in range(0, 8 * len(whole), 41):
        path.write_bytes(flip_bit(whole, position))
        with pytest.raises(QuantumMemoryError):
            load(path)
        with pytest.raises(QuantumMemoryError):
            qm.verify(path)


def test_a_smaller_form_takes_the_place_of_a_file(tmp_path: Path) -> None:
    path, state = tmp_path / "a.qms", vector("rqc4", 12)
    saved = qm.save(state, path, compression="none")
    done = qm.recompress(path)
    assert done.content_id == saved.content_id
    assert path.stat().st_size == done.bytes < saved.bytes / 4
    assert load(path).quantum == state
    again = qm.recompress(path)
    assert again.bytes == done.bytes == path.stat().st_size


def test_an_original_is_not_lost_by_accident(tmp_path: Path) -> None:
    path, other = tmp_path / "a.qms", tmp_path / "b.qms"
    qm.save(vector("haar", 12), path)
    whole = path.read_bytes()
    with pytest.raises(ConflictError, match="the original would be lost"):
        qm.recompress(path, fidelity=0.99)
    assert path.read_bytes() == whole
    qm.recompress(path, other, fidelity=0.99)
    assert path.read_bytes() == whole
    with pytest.raises(ConflictError):
        qm.recompress(path, other, fidelity=0.9)
    with pytest.raises(InvalidStateError, match="every loss adds"):
        qm.recompress(other, effort="max")
    qm.recompress(path, fidelity=0.99, overwrite=True)
    assert path.read_bytes() == other.read_bytes()


def forged(change: Any, name: str = "rqc4") -> bytes:
    """Return a MessagePack file whose forms were changed by somebody who knows how to seal it."""
    prepared = packing.packed(Prepared.plain(qm.MemoryState(vector(name, 10))), qm_fidelity())

    class Lying(Prepared):
        def parts(self, squares: Any = None) -> dict[str, Any]:
            told = json.loads(json.dumps(Prepared.parts(self, squares)))
            change(told["forms"])
            return told

    import io

    sink = io.BytesIO()
    liar = Lying(
        prepared.document, prepared.arrays, prepared.record, prepared.quantum, prepared.forms, prepared.squares
    )
    format_named("msgpack").handler.write(sink, liar, SaveOptions())
    return sink.getvalue()


def qm_fidelity() -> Any:
    from quantum_memory.formats.prepared import Fidelity

    return Fidelity.asked(0.999, None, None)


AMPLITUDES = "quantum/amplitudes"
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["form", "dtype", "shape", "sha256", "facts", "parts", "tried", "certificate", "by_parts"]),
    value=JUNK,
)
def test_no_lie_about_a_form_is_believed(tmp_path: Path, key: str, value: Any) -> None:
    lies = []

    def change(forms: dict[str, Any]) -> None:
        lies.append(forms[AMPLITUDES].get(key) != value)
        forms[AMPLITUDES][key] = value

    path = tmp_path / "a.msgpack"
    path.write_bytes(forged(change))
    for verb in (load, qm.verify, qm.info):
        try:
            verb(path)
        except QuantumMemoryError:
            continue
        assert key == "tried" or not any(lies)  # what was tried is nobody's promise


@pytest.mark.parametrize("name", ["haar", "ghz"])
@pytest.mark.parametrize("key", ["xxh3", "sha256"])
def test_nor_is_one_about_what_is_unpacked(tmp_path: Path, key: str, name: str) -> None:
    def change(forms: dict[str, Any]) -> None:
        text = forms[AMPLITUDES][key]
        forms[AMPLITUDES][key] = text[:-1] + ("0" if text[-1] != "0" else "1")

    path = tmp_path / "a.msgpack"
    path.write_bytes(forged(change, name))
    for verb in (load, qm.verify):
        with pytest.raises(IntegrityError, match="checksum" if key == "xxh3" else "content_id"):
            verb(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda forms: forms.update({"classical/x": forms[AMPLITUDES]}),
        lambda forms: forms.pop(AMPLITUDES),
        lambda forms: forms[AMPLITUDES]["parts"].popitem(),
        lambda forms: forms[AMPLITUDES]["shape"].append(2),
        lambda forms: forms[AMPLITUDES].update(shape=[1 << 61]),
        lambda forms: forms[AMPLITUDES].update(shape=[1 << 40]),
        lambda forms: forms[AMPLITUDES].update(dtype="u8"),
        lambda forms: forms[AMPLITUDES].pop("certificate"),
        lambda forms: forms[AMPLITUDES].pop("by_parts"),
        lambda forms: forms[AMPLITUDES]["certificate"]["infidelity"].update(decimal="0.0"),
    ],
)
def test_nor_is_one_about_where_it_is(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "a.msgpack"
    path.write_bytes(forged(change))
    with pytest.raises(QuantumMemoryError):
        qm.verify(path)
    with pytest.raises(QuantumMemoryError), qm.open(path) as file:
        file.amplitudes[:2].tobytes()


@pytest.mark.parametrize("name", ["haar", "rqc4"])
def test_a_certificate_is_proved_against_the_original(tmp_path: Path, name: str) -> None:
    path, original = tmp_path / "a.qms", tmp_path / "original.npz"
    state = vector(name)
    qm.save(state, original)
    qm.save(state, path, fidelity=1 - 1e-6)
    for known in (state, original):
        report = qm.verify_certificate(path, known)
        assert 0 < report.measured <= report.infidelity * (1 + 1e-9) <= 1e-6 * (1 + 1e-9)
    assert qm.verify_certificate(path).measured is None
    with pytest.raises(InvalidStateError, match="another one"):
        qm.verify_certificate(path, vector("product"))
    assert qm.verify_certificate(original, state).measured == 0
    with pytest.raises(InvalidStateError, match="another state"):
        qm.verify_certificate(original, vector("product"))


def test_one_that_does_not_hold_is_found(tmp_path: Path) -> None:
    path, state = tmp_path / "a.msgpack", vector("rqc4")
    small = {"hex": (1e-12).hex(), "decimal": repr(1e-12)}
    path.write_bytes(forged(lambda forms: forms[AMPLITUDES]["certificate"].update(infidelity=small)))
    assert qm.verify(path).content_id
    with pytest.raises(IntegrityError, match="certified to be at most"):
        qm.verify_certificate(path, state)


@pytest.mark.parametrize("name", ["dm_pure", "dm_noisy"])
def test_so_is_that_of_a_density_matrix(tmp_path: Path, name: str) -> None:
    rho = density(name)
    qm.save(rho, tmp_path / "a.qms", fidelity=0.99, effort="max")
    report = qm.verify_certificate(tmp_path / "a.qms", rho)
    assert report.measured <= report.infidelity + 1e-12


@pytest.mark.parametrize("name", ["haar", "rqc4"])
def test_a_store_keeps_forms_and_hands_them_on(tmp_path: Path, name: str) -> None:
    state = vector(name)
    storage = qm.HDF5QuantumStorage(tmp_path / "store.h5")
    small = storage.save_quantum_state(state, "small", fidelity=0.9999)
    whole = storage.save_quantum_state(state, "whole", effort="balanced")
    assert storage.load_quantum_state(whole).quantum == state
    assert qm.metrics.fidelity(storage.load_quantum_state(small).quantum, state) >= 0.9999
    out = storage.export_to_binary(small, tmp_path / "small.qms")
    assert out.infidelity == facts(tmp_path / "small.qms")["certificate"]["infidelity"] <= 1e-4
    again = storage.import_from_binary(tmp_path / "small.qms", "again")
    other = storage.import_from_binary(storage.path, "other", source_id=small)
    assert len({one["content_id"] for one in storage.list_states() if one["id"] != whole}) == 1
    assert storage.load_quantum_state(again) == storage.load_quantum_state(other) == storage.load_quantum_state(small)
    storage.optimize_storage()
    assert qm.verify_certificate(storage.path, state, state_id=small).measured > 0
    assert qm.verify(storage.path).problems == []


def test_what_is_in_another_part_as_well_is_not_lost_there(tmp_path: Path) -> None:
    amplitudes = families.state("haar", 10)
    state = qm.StateVector(amplitudes, qubit_order="big")
    memory = qm.MemoryState(state, classical={"reference": state.amplitudes})
    qm.save(memory, tmp_path / "a.qms", effort="max")
    assert load(tmp_path / "a.qms") == memory
    with pytest.raises(InvalidStateError, match="also in another part"):
        qm.save(memory, tmp_path / "b.qms", fidelity=0.9)


def test_numbers_for_people_are_those_that_are_stored(tmp_path: Path) -> None:
    with pytest.raises(InvalidStateError, match="readable"):
        qm.save(vector("haar", 9), tmp_path / "a.json", readable=True, fidelity=0.9)


def test_a_newer_file_is_not_replaced_by_what_was_made_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, newer = tmp_path / "a.qms", vector("product", 12)
    qm.save(vector("rqc4", 12), path, compression="none")
    pack = packing.packed

    def meanwhile(*args: Any) -> Prepared:
        other = threading.Thread(target=lambda: qm.save(newer, path, compression="none"))
        other.start()
        other.join()
        return pack(*args)

    monkeypatch.setattr(packing, "packed", meanwhile)
    with pytest.raises(ConflictError, match="somebody else"):
        qm.recompress(path)
    assert load(path).quantum == newer


def test_a_store_in_which_others_put_something_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    qm.save(vector("rqc4", 12), path)
    with h5py.File(path, "r+") as file:
        file["lab"] = np.arange(3)
    with pytest.raises(InvalidStateError, match="others have put something"):
        qm.recompress(path)
    qm.recompress(path, tmp_path / "b.h5")
    assert load(tmp_path / "b.h5").quantum == vector("rqc4", 12)


def test_without_room_for_temporary_files_a_state_is_saved_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(base, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(base, "temporary_file", full)
    qm.save(vector("w", 12), tmp_path / "a.qms")
    assert facts(tmp_path / "a.qms")["representation"] == "dense"
    with pytest.raises(StorageError):
        qm.save(vector("w", 12), tmp_path / "b.qms", effort="max")
    assert not (tmp_path / "b.qms").exists()


def test_a_big_endian_state_gets_a_form_and_stays_what_it_is(tmp_path: Path) -> None:
    state = qm.StateVector(families.state("w", 12, np.complex128).astype(">c16"), qubit_order="little")
    qm.save(state, tmp_path / "packed.qms")
    qm.save(state, tmp_path / "plain.qms", compression="none")
    assert facts(tmp_path / "packed.qms")["representation"] == "sparse"
    assert qm.info(tmp_path / "packed.qms")["content_id"] == qm.info(tmp_path / "plain.qms")["content_id"]
    assert load(tmp_path / "packed.qms").quantum.amplitudes.dtype == np.dtype(">c16")
    assert load(tmp_path / "packed.qms").quantum == state


def test_what_else_is_in_a_file_counts_as_it_is_stored(tmp_path: Path) -> None:
    memory = qm.MemoryState(vector("haar", 12), {"weights": np.zeros(1 << 17), "note": "again " * 1000})
    saved = qm.save(memory, tmp_path / "a.qms", max_bytes=20_000)
    assert 19_000 < saved.bytes <= 20_000
    assert load(tmp_path / "a.qms").classical["note"] == memory.classical["note"]


@pytest.mark.parametrize("name", ["dm_pure", "dm_noisy"])
def test_more_bytes_are_never_refused_where_fewer_will_do(tmp_path: Path, name: str) -> None:
    worst = 1.0
    for limit in (3_000, 6_000, 12_000, 20_000, 30_000, 40_000, 60_000):
        try:
            saved = qm.save(density(name, 6), tmp_path / "a.qms", max_bytes=limit)
        except InvalidStateError:
            assert worst == 1.0
            continue
        assert saved.bytes <= limit
        assert saved.infidelity is None or saved.infidelity <= worst * 1.1
        worst = saved.infidelity or 0.0
    assert worst < 1e-6


@pytest.mark.parametrize("fidelity", [0.5, 0.3, 0.1, 0.05])
def test_hardly_any_fidelity_takes_hardly_any_bytes(tmp_path: Path, fidelity: float) -> None:
    saved = qm.save(vector("haar", 14), tmp_path / "a.qms", fidelity=fidelity)
    assert saved.infidelity is not None
    assert 0.9 * (1 - fidelity) < saved.infidelity <= 1 - fidelity
    assert saved.bytes < saved.raw_bytes / 40


def test_progress_of_several_attempts_is_told_once(tmp_path: Path) -> None:
    told: list[int] = []
    saved = qm.save(vector("haar", 12), tmp_path / "a.qms", max_bytes=8000, progress=told.append)
    assert min(told) > 0
    assert saved.raw_bytes <= sum(told) < 1.1 * saved.raw_bytes


def test_a_file_that_is_there_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.qms").write_bytes(b"here")
    monkeypatch.setattr(packing, "packed", lambda *_: pytest.fail("it was packed"))
    with pytest.raises(ConflictError):
        qm.save(vector("haar", 12), tmp_path / "a.qms", fidelity=0.99, overwrite=False)
    assert (tmp_path / "a.qms").read_bytes() == b"here"


@pytest.mark.parametrize("options", [{"fidelity": 0.99}, {"max_bytes": 20_000}])
def test_a_state_that_changes_while_it_is_packed_gets_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    state = vector("haar", 12)
    amplitudes = state.amplitudes
    pack = Uniform.pack

    def changing(self: Uniform, array: Any, infidelity: float, effort: Any) -> Any:
        found = pack(self, array, infidelity, effort)
        amplitudes[5] += 1e-3
        return found

    monkeypatch.setattr(Uniform, "pack", changing)
    with pytest.raises(InvalidStateError, match="changed while it was being packed"):
        qm.save(state, tmp_path / "a.qms", **options)
    assert list(tmp_path.iterdir()) == []


def test_forms_that_share_a_part_are_refused() -> None:
    whole = ArrayIdentity("u8", (4,), b"\0" * 32)
    node = {
        "form": "sparse", "dtype": "c128", "shape": [2], "sha256": "00" * 32, "facts": {}, "parts": {"x": "a~x"},
        "tried": {},
    }  # fmt: skip
    with pytest.raises(IntegrityError):
        Forms.from_json({"a": node, "b": node}, {"a~x": WholeEntry(whole, 4)})
