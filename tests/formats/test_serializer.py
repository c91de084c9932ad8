"""The serializer classes, and the memory that writing and reading take."""

import io
import json
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory import EmotionalStateSerializer, MPSTensorSerializer, QuantumStateSerializer
from quantum_memory.errors import BudgetError, IntegrityError, InvalidStateError, UnsafeError
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.registry import SaveOptions, format_named
from quantum_memory.formats.state_serializer import SUFFIXES, TEXTS, Difference, differences
from quantum_memory.testing import strategies as qst
from quantum_memory.testing.equality import assert_identical

from .watched import read

FORMATS = ("json", "msgpack", "pickle", "numpy", "base64")
MIB = 1 << 20
SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EMOTION = {"recent_emotions": [{"pad_values": [0.1, -0.2, 0.3], "confidence": 0.5}], "average_confidence": 0.7}


def asked(fmt: str) -> dict[str, bool]:
    return {"allow_pickle": True} if fmt == "pickle" else {}


def state_data() -> dict:
    amplitudes = np.random.default_rng(0).normal(size=64).view(np.complex128)
    return {
        "metadata": {"run": 7, "tags": ("a", None)},
        "quantum_data": {"state_vector": amplitudes / np.linalg.norm(amplitudes)},
        "classical_data": {"weights": np.ones((3, 5), np.float32), 1: [2**70, -0.0]},
        "emotional_context": EMOTION,
    }


def chain() -> qm.MatrixProductState:
    return qm.MatrixProductState([np.ones((1, 2, 3)), np.ones((3, 2, 2)), np.ones((2, 2, 1))], log_scale=-0.5)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_state_in_dict_form_comes_back_equal_from_every_format(fmt):
    serializer = QuantumStateSerializer()
    tensors = {"mps_tensors": list(chain().tensors)}
    for data in (state_data(), state_data() | {"quantum_data": tensors}, qm.MemoryState.from_dict(state_data())):
        written = serializer.serialize(data, fmt)
        assert isinstance(written, str if fmt in TEXTS else bytes)
        loaded = serializer.deserialize(written, fmt, **asked(fmt))
        assert loaded == data
        assert loaded["metadata"] == data["metadata"]
    state = qm.StateVector(np.ones(4) / 2, qubit_order="little")
    assert serializer.deserialize(serializer.serialize(state, fmt), fmt, **asked(fmt)).quantum == state


@given(qst.memory_states(), st.sampled_from(FORMATS))
@SETTINGS
def test_any_memory_comes_back_and_validates(memory, fmt):
    serializer = QuantumStateSerializer()
    assert_identical(memory, serializer.deserialize(serializer.serialize(memory, fmt), fmt, allow_pickle=True))
    validation = serializer.validate_serialization(memory, fmt)
    assert validation
    assert validation.content_id == memory.content_id


@given(qst.emotional_contexts(), st.sampled_from(FORMATS))
@SETTINGS
def test_any_emotional_context_comes_back(context, fmt):
    serializer = EmotionalStateSerializer()
    assert_identical(context, serializer.deserialize(serializer.serialize(context, fmt), fmt, allow_pickle=True))


@given(qst.matrix_product_states(), st.sampled_from(FORMATS))
@SETTINGS
def test_any_matrix_product_state_comes_back(state, fmt):
    serializer = MPSTensorSerializer()
    assert_identical(state, serializer.deserialize(serializer.serialize(state, fmt), fmt, allow_pickle=True))


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_serializing_gives_are_the_bytes_of_the_file(fmt, tmp_path):
    serializer = QuantumStateSerializer()
    path = tmp_path / f"a.{SUFFIXES[fmt]}"
    qm.save(state_data(), path)
    written = serializer.serialize(state_data(), fmt)
    data = written.encode() if isinstance(written, str) else written
    assert path.read_bytes() == data
    for form in (data, bytearray(data), memoryview(data)):
        assert serializer.deserialize(form, fmt, **asked(fmt)) == state_data()


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_emotional_context_in_dict_form_comes_back_in_it(fmt):
    serializer = EmotionalStateSerializer()
    context = serializer.deserialize(serializer.serialize(EMOTION, fmt), fmt, **asked(fmt))
    assert context.to_dict() == EMOTION
    assert serializer.validate_serialization(EMOTION, fmt)


@pytest.mark.parametrize("fmt", FORMATS)
def test_tensors_of_a_chain_come_back_as_the_state(fmt):
    serializer = MPSTensorSerializer()
    for value in (chain(), list(chain().tensors)):
        state = serializer.deserialize(serializer.serialize(value, fmt), fmt, **asked(fmt))
        assert [t.tobytes() for t in state.tensors] == [t.tobytes() for t in chain().tensors]
    assert serializer.deserialize(serializer.serialize(chain(), fmt), fmt, **asked(fmt)) == chain()


# ---- refusals


def test_what_it_cannot_do_it_says():
    serializer = QuantumStateSerializer()
    data = serializer.serialize(state_data(), "pickle")
    for call, error, said in (
        (lambda: serializer.serialize(state_data(), "yaml"), InvalidStateError, "json, msgpack, pickle, numpy, base64"),
        (lambda: serializer.deserialize(b"", "yaml"), InvalidStateError, "no format 'yaml'"),
        (lambda: serializer.serialize({"classical_data": object()}), InvalidStateError, "cannot be kept exactly"),
        (lambda: serializer.serialize(state_data(), "json", compression="zlib"), InvalidStateError, "no compression"),
        (lambda: serializer.deserialize(data, "pickle"), UnsafeError, "allow_pickle=True"),
        (lambda: serializer.deserialize(data, "msgpack"), IntegrityError, "<msgpack>"),
        (lambda: serializer.deserialize("ü", "json"), IntegrityError, "no release writes"),
        (lambda: MPSTensorSerializer().deserialize(data, "pickle", allow_pickle=True), InvalidStateError, "without a"),
        (lambda: EmotionalStateSerializer().serialize([1, 2]), InvalidStateError, "not an emotional context"),
    ):
        with pytest.raises(error, match=said):
            call()
    without = serializer.serialize(np.ones(2), "json")
    with pytest.raises(InvalidStateError, match="without an emotional context"):
        EmotionalStateSerializer().deserialize(without)


@pytest.mark.parametrize("fmt", ["msgpack", "numpy", "pickle", "base64"])
def test_arrays_past_the_budget_are_not_read(fmt):
    serializer = QuantumStateSerializer()
    data = serializer.serialize(np.ones(1000), fmt)
    with pytest.raises(BudgetError):
        serializer.deserialize(data, fmt, max_bytes=7999, **asked(fmt))
    assert serializer.deserialize(data, fmt, max_bytes=8000, **asked(fmt)) == {"quantum_data": np.ones(1000)}


def test_text_may_become_as_long_as_is_said():
    long = {"classical_data": np.random.default_rng(0).bytes(13 * MIB)}
    with pytest.raises(InvalidStateError, match="max_text_bytes"):
        QuantumStateSerializer().serialize(long)
    serializer = QuantumStateSerializer(max_text_bytes=20 * MIB)
    text = serializer.serialize(long)
    assert serializer.deserialize(text) == long
    with pytest.raises(UnsafeError):
        QuantumStateSerializer().deserialize(text)


# ---- what differs


def memory(**tree) -> qm.MemoryState:
    return qm.MemoryState(np.ones(4), tree, metadata={"run": 1})


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (memory(a=np.zeros(3)), memory(a=np.zeros(3)), []),
        (
            memory(a=np.zeros((2, 3))),
            memory(a=np.array([[0, 0, 0], [0, -0.0, 1]])),
            [("classical/a", "value", 0.0, -0.0, "f64", (1, 1))],
        ),
        (memory(a=np.ones(3)), memory(a=np.ones(3, np.float32)), [("classical/a", "dtype", "f64", "f32", "f64", None)]),
        (memory(a=np.zeros(3)), memory(a=np.zeros((3, 1))), [("classical/a", "shape", (3,), (3, 1), "f64", None)]),
        (
            memory(a=np.zeros(3)),
            memory(b=np.zeros(3)),
            [
                ("classical/a", "missing", (3,), None, "f64", None),
                ("classical/b", "added", None, (3,), "f64", None),
                ("classical_data.a.$array", "missing", "classical/a", None, None, None),
                ("classical_data.b.$array", "added", None, "classical/b", None, None),
            ],
        ),
        (memory(a=1), memory(a=True), [("classical_data.a", "value", 1, True, None, None)]),
        (memory(a=0.0), memory(a=-0.0), [("classical_data.a", "value", 0.0, -0.0, None, None)]),
        (memory(a={}), memory(a=[]), [("classical_data.a", "value", {}, [], None, None)]),
        (memory(a=[1, 2]), memory(a=[1]), [("classical_data.a.1", "missing", 2, None, None, None)]),
        (memory(a={1: "x", 2: "y"}), memory(a={2: "y", 1: "x"}), []),
        (memory(a={1: "x"}), memory(a={1: "z"}), [("classical_data.a.1", "value", "x", "z", None, None)]),
    ],
)  # fmt: skip
def test_it_says_what_differs_and_where(a, b, expected):
    assert differences(a, b) == [Difference(*one) for one in expected]
    assert bool(differences(a, b)) == (a != b)


def test_the_first_item_that_differs_is_found_past_the_first_chunk():
    values = np.zeros((1000, 300))
    other = values.copy()
    other[700, 5] = np.nan
    (found,) = differences(memory(a=values.T), memory(a=other.T))
    assert (found.index, found.before) == ((5, 700), 0.0)
    assert np.isnan(found.after)


def test_a_format_that_loses_something_does_not_validate(monkeypatch):
    class Forgetful(QuantumStateSerializer):
        def deserialize(self, *arguments, **options):
            loaded = super().deserialize(*arguments, **options)
            loaded.classical["weights"] = loaded.classical["weights"].astype(np.float64)
            return loaded

    validation = Forgetful().validate_serialization(state_data(), "numpy")
    assert not validation
    assert [(one.path, one.what) for one in validation.differences] == [("classical/weights", "dtype")]


def test_formats_are_compared_by_length_and_time():
    figures = QuantumStateSerializer().compare_formats(state_data(), repeats=3)
    assert set(figures) == set(FORMATS)
    for fmt, one in figures.items():
        assert one.ok
        assert one.bytes == len(QuantumStateSerializer().serialize(state_data(), fmt))
        assert one.ratio == pytest.approx((512 + 60) / one.bytes)
        assert 0 < one.serialize_seconds < 1
        assert 0 < one.deserialize_seconds < 1
    assert figures["msgpack"].bytes < figures["base64"].bytes
    assert QuantumStateSerializer().compare_formats({"metadata": {"a": 1}}, ["json"])["json"].ratio is None


# ---- while it is written


@pytest.mark.parametrize("suffix", ["msgpack", "npz", "pkl", "b64"])
def test_an_array_that_changes_meanwhile_is_written_as_one_whole(suffix):
    values = np.zeros(3 << 17)

    class Meddling(io.BytesIO):
        def write(self, data):
            values[:] += 1
            return super().write(data)

    sink = Meddling()
    name = format_named(suffix).handler.write(sink, Prepared.plain(qm.MemoryState(classical=values)), SaveOptions())
    assert read(suffix, sink.getvalue()).content_id == name


def peak_of(work: str, path) -> int:
    """Return by how many bytes the peak resident memory of a child grew while it did `work`."""
    program = """
    import sys
    import numpy as np, quantum_memory as qm
    path = sys.argv[1]
    qm.save(np.ones(4), path); qm.load(path, allow_pickle=True)
    status = lambda: dict(line.split()[:2] for line in open("/proc/self/status") if line[:2] == "Vm")
    before = int(status()["VmRSS:"])
    def state():
        array = np.ones((2048, 4096), np.complex128)
        array[::3] += 1j
        return array
    """
    end = """
    print(1024 * (int(status()["VmHWM:"]) - before))
    """
    code = textwrap.dedent(program) + textwrap.dedent(work) + textwrap.dedent(end)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, check=True, text=True, timeout=120
    )
    return int(json.loads(done.stdout))


@pytest.mark.parametrize("suffix", ["msgpack", "npz", "pkl", "b64"])
def test_saving_and_loading_need_the_state_and_little_more(suffix, tmp_path):
    path = tmp_path / f"big.{suffix}"
    allowed = (128 + 64) * MIB
    assert peak_of("qm.save(qm.MemoryState(classical=state().T), path)", path) < allowed
    assert path.stat().st_size > 128 * MIB
    assert peak_of("qm.load(path.replace('big', 'big2'), allow_pickle=True)", _renamed(path)) < allowed


def _renamed(path):
    other = path.with_name(f"big2{path.suffix}")
    path.rename(other)
    return path


def test_a_compressed_archive_needs_no_more(tmp_path):
    path = tmp_path / "big.npz"
    work = "s = qm.MemoryState(classical=state()); qm.save(s, path, compression='zlib'); del s; qm.load(path)"
    assert peak_of(work, path) < (128 + 64) * MIB
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("classical.npy").compress_size < MIB
