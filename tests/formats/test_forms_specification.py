"""The decoder that the specification of forms prints, which knows nothing of this package, unpacks what it packs."""

import ast
import base64
import json
import pickle
import re
import sys
import types
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
from benchmarks import families

import quantum_memory as qm
from quantum_memory.compression.certificate import DEFINITION, UHLMANN
from quantum_memory.compression.codecs import zstandard
from quantum_memory.compression.forms.density import LowRankDensity
from quantum_memory.compression.forms.dictionary import Dictionary
from quantum_memory.compression.forms.flip_fold import FlipFold
from quantum_memory.compression.forms.hermitian_fold import HermitianFold
from quantum_memory.compression.forms.low_rank import LowRank
from quantum_memory.compression.forms.mps import MatrixProduct
from quantum_memory.compression.forms.natural_basis import NaturalBasis
from quantum_memory.compression.forms.plain import Plain
from quantum_memory.compression.forms.registry import FORMS, form_named
from quantum_memory.compression.forms.rotations import turn
from quantum_memory.compression.forms.sparse import Sparse
from quantum_memory.compression.forms.stabilizer import Stabilizer
from quantum_memory.compression.forms.trellis import Trellis
from quantum_memory.compression.forms.uniform import Uniform
from quantum_memory.compression.forms.views import unpack
from quantum_memory.errors import UnsupportedVersionError
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.document import content_id, identify

DOCS = Path(__file__).parents[2] / "docs"

WITHOUT_LOSS = set(FORMS)
INEXACT = {"mps", "low_rank_density"}
WITH_LOSS = {"uniform", "trellis", "natural_basis"} | INEXACT
COMPLEX = (np.complex64, np.complex128)
TYPES = (np.float32, np.float64, *COMPLEX)


def code_of(page):
    """Return what a page defines, as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    code = next(block for block in blocks if "\ndef " in block)
    space = {}
    exec(compile(code, page, "exec"), space)  # they are our own pages
    return space


@pytest.fixture(scope="module")
def _zstd():
    """zstd under the name that it has in Python 3.14, from the backport where Python has none of its own."""
    package, module = types.ModuleType("compression"), types.ModuleType("compression.zstd")
    module.decompress = zstandard._zstd().decompress
    package.zstd = module
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "compression", package)
        patch.setitem(sys.modules, "compression.zstd", module)
        yield


@pytest.fixture(scope="module")
def page(_zstd):
    return code_of("forms.md")


@pytest.fixture(scope="module")
def read_qms(_zstd):
    return code_of("qms_format.md")["read_content"]


def test_the_decoder_is_short_and_knows_nothing_of_this_package(page):
    code = re.search(r"```python\n(.*?)```", (DOCS / "forms.md").read_text(), re.DOTALL)[1]
    imported = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported == {"hashlib", "json", "math", "numpy", "pcodec.standalone", "compression.zstd"}
    assert len(code.splitlines()) < 350
    assert set(page["EXACT"]) == WITHOUT_LOSS
    assert set(page["FORMS"]) == WITHOUT_LOSS | WITH_LOSS


# Whole files


def state(name, n, dtype):
    made = families.state(name, n, dtype)
    if families.is_density_matrix(name):
        return qm.DensityMatrix(made.reshape(2 ** (n // 2), -1), qubit_order="little")
    return qm.StateVector(made, qubit_order="little")


STATES = (
    ("ghz", 10), ("w", 10), ("dicke", 11), ("graph", 10), ("clifford", 10), ("clifford_t", 11), ("grover", 10),
    ("uniform", 10), ("qaoa1", 12), ("product", 12), ("rqc4", 12), ("heis", 10), ("tfim", 10), ("haar", 11),
    ("dm_ghz", 12), ("dm_pure", 12), ("dm_noisy", 12), ("dm_ginibre", 12), ("dm_thermal", 12),
)  # fmt: skip

WAYS = (
    {"effort": "fast"},
    {"effort": "max"},
    {"effort": "fast", "fidelity": 1 - 1e-6},
    {"effort": "max", "fidelity": 1 - 1e-6},
)


def assert_same(found, expected, form, dtype):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if form in INEXACT:
        precision = 1e-12 if np.finfo(dtype).bits == 64 else 1e-6
        assert np.linalg.norm(found - expected) <= precision * np.linalg.norm(expected)
    else:
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", COMPLEX)
def test_it_unpacks_the_states_of_files(page, read_qms, dtype, tmp_path):
    seen = set()
    for name, n in STATES:
        saved = state(name, n, dtype)
        for way in WAYS:
            path = tmp_path / "a.qms"
            qm.save(saved, path, **way)
            content, stored = read_qms(path.read_bytes())
            forms = content.get("forms", {})
            arrays = page["unpacked"](forms, stored)
            where = "quantum/matrix" if name.startswith("dm_") else "quantum/amplitudes"
            loaded = qm.load(path).quantum
            loaded = loaded.matrix if name.startswith("dm_") else loaded.amplitudes
            assert set(arrays) == {where}
            form = forms[where]["form"] if forms else None
            seen.add(form)
            assert_same(arrays[where], loaded, form, dtype)
            if form not in WITH_LOSS:
                original = saved.matrix if name.startswith("dm_") else saved.amplitudes
                assert arrays[where].tobytes() == original.tobytes()
    # Which form is the smallest may change; each of these is by far.
    assert seen >= {"stabilizer", "low_rank", "hermitian_fold", "numbers", "mps", "low_rank_density"}


def test_what_it_returns_has_the_content_id_of_the_memory(page, read_qms, tmp_path):
    for name, n in (("graph", 11), ("haar", 11), ("ghz", 17)):  # the last one is of more than one chunk
        saved = qm.save(state(name, n, np.complex128), tmp_path / "a.qms", effort="max", fidelity=1 - 1e-6)
        content, stored = read_qms((tmp_path / "a.qms").read_bytes())
        assert content["forms"]
        assert content_id(content["document"], identify(page["unpacked"](content["forms"], stored))) == saved.content_id


@pytest.fixture(scope="module")
def stored_in(_zstd, read_qms):
    """What a file of any format says and stores, read as its specification says."""
    store = code_of("storage_architecture.md")

    def arrays(listed, data_of):
        return {
            path: np.frombuffer(data_of(node["data"]), STORABLE[node["dtype"]]).reshape(node["shape"])
            for path, node in listed.items()
        }

    def read(path):
        suffix, data = path.name.partition(".")[2], path.read_bytes()
        if suffix == "qms":
            return read_qms(data)
        if suffix == "h5":
            with store["open_store"](path) as root:
                assert store["read_state"](root, "state")[3] == qm.verify(path).content_id
                return store["read_content"](root, "state")
        if suffix.startswith("json"):
            text = data if suffix == "json" else zlib.decompress(data[4 + int.from_bytes(data[:4], "little") :])
            content = json.loads(text)
            return content, arrays(content["arrays"], base64.b64decode)
        if suffix == "npz":
            with np.load(path) as archive:
                stored = {name: archive[name] for name in archive.files if name not in {"quantum-memory", "content_id"}}
            return json.loads(stored.pop("document").tobytes()), stored
        unpack = {
            "pkl": pickle.loads,
            "msgpack": msgpack.unpackb,
            "b64": lambda b: msgpack.unpackb(base64.b64decode(b)),
        }
        tree = unpack[suffix](data)
        return json.loads(tree["document"]), arrays(tree["arrays"], bytes)

    return read


def test_the_decoder_of_qms_reads_numbers_that_pcodec_packed(read_qms, tmp_path):
    random = np.random.default_rng(0)
    tree = {
        code[1:]: random.integers(0, 100, 200_003).astype(code) for code in ("<u2", "<u4", "<u8", "<i2", "<i4", "<i8")
    }
    tree |= {np.dtype(dtype).name: haar(200_003, dtype) for dtype in TYPES} | {"bool": tree["u2"] > 50}
    memory = qm.MemoryState(None, tree)
    qm.save(memory, tmp_path / "a.qms", compression="pcodec")
    sections = qm.info(tmp_path / "a.qms")["sections"]
    assert [section["dtype"] for section in sections if section["codecs"] != ["pcodec"]] == ["bool"]
    stored = read_qms((tmp_path / "a.qms").read_bytes())[1]
    for name, array in memory.flatten().arrays.items():
        assert (stored[name].dtype, stored[name].tobytes()) == (array.dtype, array.tobytes())


@pytest.mark.parametrize("name", ["clifford_t", "rqc4"])
@pytest.mark.parametrize("suffix", ["qms", "h5", "json", "json.zlib", "msgpack", "b64", "pkl", "npz"])
def test_forms_stand_where_the_page_says(page, stored_in, name, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    qm.save(state(name, 11, np.complex128), path, effort="max", fidelity=1 - 1e-6)
    content, stored = stored_in(path)
    (node,) = content["forms"].values()
    assert set(stored) == set(node["parts"].values())
    arrays = page["unpacked"](content["forms"], stored)
    assert list(arrays) == list(content["forms"]) == ["quantum/amplitudes"]
    loaded = qm.load(path, allow_pickle=True).quantum.amplitudes
    assert_same(arrays["quantum/amplitudes"], loaded, node["form"], np.complex128)


def test_it_notices_damage_and_what_it_does_not_know(page, read_qms, tmp_path):
    path = tmp_path / "a.qms"
    for name in ("clifford_t", "rqc4", "graph", "haar"):
        qm.save(state(name, 11, np.complex128), path, effort="max", fidelity=1 - 1e-6)
        content, stored = read_qms(path.read_bytes())
        (node,) = content["forms"].values()
        changes = [{"form": "newer"}, {"sha256": "0" * 64}, {"by_parts": "by_parts" not in node}]
        changes.append({"certificate": {}} if "certificate" not in node else {"form": "numbers"})
        for change in changes:
            with pytest.raises(AssertionError):
                page["unpacked"]({"quantum/amplitudes": node | change}, stored)
        if "by_parts" in node:
            for part, array in stored.items():
                broken = array.copy()
                broken.view(np.uint8)[len(broken) // 2] ^= 1
                with pytest.raises(AssertionError, match="is damaged"):
                    page["unpacked"](content["forms"], stored | {part: broken})


def test_the_sentence_of_the_page_is_that_of_the_library():
    said = re.search(r'\("(an array is packed in the form \'x\'[^"]*)"\)', re.sub(r"\s+", " ", prose()))[1]
    with pytest.raises(UnsupportedVersionError, match=re.escape(said)):
        form_named("x")


# Each form, at its corners


def haar(count, dtype, seed=0):
    random = np.random.default_rng(seed)
    numbers = random.standard_normal((count, np.empty(0, dtype).itemsize // np.empty(0, dtype).real.itemsize))
    made = numbers.view(np.complex128 if numbers.shape[1] == 2 else np.float64)[:, 0]
    return (made / np.linalg.norm(made)).astype(dtype)


def hermitian(size, dtype, noise=0.0):
    made = haar(size * size, dtype).reshape(size, size)
    made = made + made.conj().T
    return (made * (1 + noise * np.random.default_rng(1).standard_normal(made.shape))).astype(dtype)


def flipping_zeros(dtype):
    """Zeros below the diagonal that have the other sign than those above."""
    made = hermitian(16, dtype)
    made.imag[::3], made.imag[:, ::3] = 0.0, -0.0
    return made


def odd_graph(dtype):
    """A graph state with zeros of the other sign here and there, and two amplitudes that are anything."""
    made = families.state("graph", 8, dtype).copy()
    made.imag[3::7] *= -1
    made[[5, 77]] = 0.3
    return made


def drawn(values, count, dtype):
    table = haar(values, np.float64).astype(np.empty(0, dtype).real.dtype)
    return table[np.random.default_rng(values).integers(values, size=count)].view(dtype)


def where(marked, dtype):
    return np.where(marked, haar(len(marked), dtype), np.zeros(1, dtype))


def without_loss(dtype):
    """Yield forms and arrays; some have more numbers than a block, some an odd number of them."""
    yield Plain(), haar(300_001, dtype)
    yield Sparse(), np.zeros(99, dtype)
    yield Sparse(), where(np.random.default_rng(0).random(400_000) < 0.003, dtype)
    yield Sparse(), where(np.arange(300_003) % 2 == 1, dtype)
    yield from ((Dictionary(), drawn(values, 80_000, dtype)) for values in (1, 2, 3, 9, 200, 3000))
    yield Dictionary(), np.tile(drawn(300, 1000, dtype), 5000)
    for sign, count in ((1, 128), (-1, 128), (1, 81)):
        half = haar((count + 1) // 2, dtype)
        yield FlipFold(), np.concatenate([half, sign * half[: count // 2][::-1]])
    for size, noise in ((2, 0.0), (33, 0.0), (33, 1e-6)):
        yield HermitianFold(), hermitian(size, dtype, noise)
    yield from ((Stabilizer(), np.full(count, 0.5, dtype)) for count in (1, 2, 4))
    matrix = haar(64 * 3, dtype).reshape(64, 3) @ haar(3 * 48, dtype, 1).reshape(3, 48)
    yield LowRank(), matrix.astype(dtype)
    if np.dtype(dtype).kind == "c":
        yield Sparse(), np.full(2000, complex(0.0, -0.0), dtype)
        yield HermitianFold(), flipping_zeros(dtype)
        yield Stabilizer(), odd_graph(dtype)
        yield from ((LowRank(), families.state(name, n, dtype)) for name, n in LOW_RANK)
        one = families.state("rqc4", 12, dtype)
        yield FlipFold(), np.concatenate([one, -one[::-1]])  # with another form in it


LOW_RANK = (("hea1", 10), ("hea3", 14), ("rqc4", 12), ("rqc4", 19))
"""States whose residuals have contexts of each kind, or take several blocks."""

CORNERS = {
    "sparse": ("nonzero", "places"),
    "dictionary": ("bits", "coder"),
    "flip_fold": ("negated",),
    "hermitian_fold": ("exact", "flips_zeros"),
    "stabilizer": ("signs", "corrections"),
    "low_rank": ("real", "contexts"),
    "uniform": ("integers", "real", "low"),
    "trellis": ("integers", "real", "low"),
    "natural_basis": ("turned", "half"),
    "mps": ("real",),
    "low_rank_density": ("real", "interleaved"),
}
"""Facts that divide the arrays of a form into kinds."""


def corners_of(packed):
    yield packed.form
    yield from (
        f"{packed.form} {fact} {packed.facts[fact]}" for fact in CORNERS.get(packed.form, ()) if fact in packed.facts
    )
    if packed.form == "low_rank_density":
        yield f"groups {len(packed.facts.get('groups', [])) > 1}"


def restored(page, packed, like):
    """Return what the decoder of the page makes of it, in memory that held something else."""
    found = np.full(like.shape, 7, like.dtype)
    page["FORMS"][packed.form](json.loads(json.dumps(packed.facts)), packed.parts, found)
    return found


@pytest.mark.parametrize("dtype", TYPES)
def test_forms_without_loss(page, dtype):
    seen = set()
    for form, array in without_loss(dtype):
        for effort in ("fast", "max") if array.nbytes < 1 << 18 else ("fast",):
            packed = form.pack(array, effort)
            assert packed is not None
            assert restored(page, packed, array).tobytes() == array.tobytes()
            seen.update(corners_of(packed))
    expected = {
        "numbers", "sparse nonzero 0", "sparse places gaps", "sparse places mask",
        *(f"dictionary bits {bits}" for bits in (0, 1, 2, 4, 8, 16)),
        "dictionary coder zstd", "dictionary coder numbers", "flip_fold negated True", "flip_fold negated False",
        "hermitian_fold exact True", "hermitian_fold exact False", "hermitian_fold flips_zeros False",
        "stabilizer signs False", "stabilizer corrections 0", "low_rank real True",
    }  # fmt: skip
    if np.dtype(dtype).kind == "c":
        expected |= {
            "hermitian_fold flips_zeros True", "stabilizer signs True", "stabilizer corrections 2",
            "low_rank real False", *(f"low_rank contexts {how}" for how in ("none", "level", "partner")),
        }  # fmt: skip
    assert expected <= seen


def turned(vector):
    """Turn all qubits, so that their natural bases are others."""
    made = vector.astype(np.result_type(vector.dtype, np.float64))
    phases = 1j if np.iscomplexobj(vector) else -1
    turn(made, [complex(0.5 * phases**qubit) for qubit in range(made.size.bit_length() - 1)])
    return made.astype(vector.dtype)


def parity(odd, dtype):
    return where(np.bitwise_count(np.arange(2**10)) % 2 == odd, dtype)


def matrix_of(name, n, dtype):
    made = families.state(name, n).reshape(2 ** (n // 2), -1)
    return np.ascontiguousarray(made if np.dtype(dtype).kind == "c" else made.real).astype(dtype)


def with_loss(dtype):
    """Yield forms, arrays, infidelities and efforts."""
    for form in (Uniform(), Trellis()):
        yield form, haar(2**18 + 5, dtype), 1e-4, "fast"
        for infidelity in (1e-6, 1e-11):
            yield form, haar(3**7, dtype), infidelity, "max"
    for sign in (1, -1):
        half = haar(2**9, dtype)
        yield NaturalBasis(), np.concatenate([half, sign * half[::-1]]), 1e-6, "balanced"
        yield NaturalBasis(), parity(sign < 0, dtype), 1e-6, "balanced"
    real = families.state("hea1", 11).real
    if np.dtype(dtype).kind == "c":
        yield from ((form, families.state("hea3", 11, dtype), 1e-6, "max") for form in (Uniform(), Trellis()))
        for name in ("qaoa1", "product"):
            state = families.state(name, 12, dtype) + dtype(0.3 * (name == "product")) * haar(2**12, dtype)
            yield NaturalBasis(), turned(state), 1e-4, "balanced"
        yield from ((MatrixProduct(), families.state(name, 11, dtype), 1e-6, "max") for name in ("rqc4", "tfim"))
        if dtype == np.complex128:
            yield from ((form, haar(2**11, dtype), 1e-20, "fast") for form in (Uniform(), Trellis()))
    else:
        yield NaturalBasis(), turned(real + 0.05 * haar(2**11, np.float64)).astype(dtype), 1e-4, "balanced"
        yield MatrixProduct(), real.astype(dtype), 1e-6, "max"
    infidelity = 1e-6 if np.finfo(dtype).bits == 64 else 1e-3
    yield from ((LowRankDensity(), matrix_of(name, n, dtype), infidelity, "max") for name, n in DENSITY)
    mixed = matrix_of("dm_ginibre", 10, dtype).real.astype(dtype)
    yield LowRankDensity(), mixed, infidelity, "max"
    vector, phase = np.ones(1), 1 if mixed.dtype.kind == "f" else 1j
    for angle in np.random.default_rng(0).uniform(0.5, 1.1, 10):
        vector = np.kron(vector, [np.cos(angle), np.sin(angle) * phase**angle])
    yield LowRankDensity(), np.outer(vector, vector.conj()).astype(dtype), infidelity, "fast"


DENSITY = (("dm_pure", 10), ("dm_noisy", 14), ("dm_thermal", 12))


@pytest.mark.parametrize("dtype", TYPES)
def test_forms_with_loss(page, dtype):
    seen = set()
    for form, array, infidelity, effort in with_loss(dtype):
        done = form.pack(array, infidelity, effort)
        assert done is not None
        loaded = np.full(array.shape, 5, array.dtype)
        unpack(form, done.packed.facts, done.packed.parts, loaded)
        assert_same(restored(page, done.packed, array), loaded, form.name, dtype)
        seen.update(corners_of(done.packed))
    both = ("True", "False")
    expected = {
        *(f"{form} integers {kind}" for form in ("uniform", "trellis") for kind in ("i2", "i4")),
        *(f"natural_basis half [{flip}, {odd}]" for flip in both for odd in both),
        *(f"natural_basis turned {one}" for one in both),
        "low_rank_density interleaved True", *(f"groups {one}" for one in both),
    }  # fmt: skip
    if np.dtype(dtype).kind == "c":
        expected |= {f"{form} real {one}" for form in ("uniform", "trellis", "mps", "low_rank_density") for one in both}
        expected |= {"natural_basis half None"}
    if dtype == np.complex128:
        expected |= {"uniform integers i8", "trellis integers i8"}
    if dtype != np.float32:
        expected.add("low_rank_density interleaved False")
    assert expected <= seen
    assert any(one.startswith("uniform low") for one in seen)


# What the page says beside the decoder


def prose():
    return re.sub(r"```.*?```", "", (DOCS / "forms.md").read_text(), flags=re.DOTALL)


def test_the_page_names_every_form_and_both_definitions():
    text = prose()
    assert set(re.findall(r"^### `(\w+)`$", text, re.MULTILINE)) == WITHOUT_LOSS | WITH_LOSS
    for definition in (DEFINITION, UHLMANN):
        assert f"`{definition}`" in text


def test_the_page_names_every_key_of_a_node_and_of_a_certificate(read_qms, tmp_path):
    path = tmp_path / "a.qms"
    qm.save(state("rqc4", 11, np.complex128), path, fidelity=1 - 1e-6)
    (node,) = read_qms(path.read_bytes())[0]["forms"].values()
    keys = {key for row in re.findall(r"^\| (`.*?) \|", prose(), re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)}
    assert {*node, *node["certificate"]} <= keys
    assert node["by_parts"] is True
    for number in (node["certificate"][name] for name in ("infidelity", "requested")):
        assert repr(float.fromhex(number["hex"])) == number["decimal"]
