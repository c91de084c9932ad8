"""What differs between two checkpoints, against what is computed by hand."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.formats.reader import whole_reader
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints import comparing_states
from quantum_memory.lifecycle.checkpoints.comparing import Comparison, compare
from quantum_memory.lifecycle.checkpoints.reader import CheckpointReader
from quantum_memory.state.arrays import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT_HALF = 1 / np.sqrt(2)
PAULI = [np.array(matrix) for matrix in ([[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]])]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[CheckpointManager]:
    with CheckpointManager(tmp_path / "run", signals=False, durable=False, max_checkpoints=100) as made:
        yield made


@contextmanager
def readers(manager: CheckpointManager, *targets: Any) -> Iterator[list[CheckpointReader]]:
    ids = [manager.create_checkpoint(target) for target in targets]
    with manager.folder.reading(ids[0]) as a, manager.folder.reading(ids[1]) as b:
        yield [a, b]


def compared(manager: CheckpointManager, a: Any, b: Any, **options: Any) -> Comparison:
    with readers(manager, a, b) as (first, second):
        return compare(first, second, **options)


def vector(values: Any, order: Any = "big", **facts: Any) -> qm.StateVector:
    return qm.StateVector(np.asarray(values, np.complex128), qubit_order=order, **facts)


def random_vector(n: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=2**n) + 1j * rng.normal(size=2**n)
    return values / np.linalg.norm(values)


def by_hand(values: np.ndarray[Any, Any], site: int) -> list[float]:
    """Bloch vector of a qubit, with whole operators; qubit 0 is the most significant."""
    n = int(np.log2(len(values)))
    found = []
    for pauli in PAULI:
        operator = np.kron(np.kron(np.eye(2**site), pauli), np.eye(2 ** (n - site - 1)))
        found.append((values.conj() @ operator @ values).real / np.vdot(values, values).real)
    return found


def entropy_by_hand(values: np.ndarray[Any, Any], cut: int) -> float:
    matrix = values.reshape(2**cut, -1)
    p = np.linalg.eigvalsh(matrix @ matrix.conj().T / np.vdot(values, values).real)
    p = p[p > 1e-15]
    return float(-(p * np.log2(p)).sum())


# --- quantum states


def test_product_to_bell(manager: CheckpointManager) -> None:
    (state,) = compared(manager, vector([1, 0, 0, 0]), vector([ROOT_HALF, 0, 0, ROOT_HALF])).states
    assert (state.name, state.same, state.left_out) == ("quantum", False, {})
    assert state.fidelity == pytest.approx(0.5)
    assert state.trace_distance == pytest.approx(math.sqrt(0.5))
    assert state.bures_distance == pytest.approx(math.sqrt(2 - math.sqrt(2)))
    assert state.bures_angle == pytest.approx(math.pi / 4)
    assert state.norms == pytest.approx((1, 1))
    assert np.allclose(state.bloch_change, [[0, 0, -1], [0, 0, -1]])
    assert np.allclose(state.entropies, [[0], [1]])
    assert np.allclose(state.entropy_change, [1])


@pytest.mark.parametrize("order", ["big", "little"])
def test_random_states_in_both_orders(manager: CheckpointManager, order: Any) -> None:
    a, b = random_vector(4, 1), 3 * random_vector(4, 2)
    states = [vector(x, "big").reordered(order) for x in (a, b)]
    (state,) = compared(manager, *states).states
    overlap = abs(np.vdot(a, b)) / 3
    assert state.fidelity == pytest.approx(overlap**2)
    assert state.trace_distance == pytest.approx(math.sqrt(1 - overlap**2))
    assert state.bures_distance == pytest.approx(math.sqrt(2 - 2 * overlap))
    assert state.bures_angle == pytest.approx(math.acos(overlap))
    assert state.norms == pytest.approx((1, 3))
    for values, bloch, entropies in zip((a, b), state.bloch, state.entropies, strict=True):
        assert np.allclose(bloch, [by_hand(values, site) for site in range(4)])
        assert np.allclose(entropies, [entropy_by_hand(values, cut) for cut in (1, 2, 3)])


def test_orders_are_reconciled(manager: CheckpointManager) -> None:
    a = vector(random_vector(3, 5), "big")
    (state,) = compared(manager, a, a.reordered("little")).states
    assert state.fidelity == pytest.approx(1)
    assert np.allclose(state.bloch_change, 0)
    assert np.allclose(state.entropy_change, 0)


def test_matrix_product_states(manager: CheckpointManager) -> None:
    a, b = random_vector(5, 3), np.zeros(32, complex)
    b[[0, -1]] = ROOT_HALF  # a GHZ state
    chains = [qm.MatrixProductState.from_dense(vector(x)) for x in (a, b)]
    (state,) = compared(manager, *chains).states
    assert state.left_out == {}
    assert state.fidelity == pytest.approx(abs(np.vdot(a, b)) ** 2)
    assert np.allclose(state.bloch[0], [by_hand(a, site) for site in range(5)])
    assert np.allclose(state.bloch[1], 0)
    assert np.allclose(state.entropies[0], [entropy_by_hand(a, cut) for cut in range(1, 5)])
    assert np.allclose(state.entropies[1], 1)
    assert state.kinds == ("matrix product state of 5 sites",) * 2


def test_a_chain_and_a_vector(manager: CheckpointManager) -> None:
    a, b = random_vector(3, 3), random_vector(3, 4)
    (state,) = compared(manager, qm.MatrixProductState.from_dense(vector(a)), vector(b, "big")).states
    assert state.fidelity == pytest.approx(abs(np.vdot(a, b)) ** 2)
    assert state.bloch_change is not None
    assert state.kinds == ("matrix product state of 3 sites", "state vector of 3 sites")


def test_density_matrices(manager: CheckpointManager) -> None:
    mixed = qm.DensityMatrix(np.diag([0.75, 0.25]).astype(complex), qubit_order="big")
    (state,) = compared(manager, mixed, qm.DensityMatrix(np.diag([0.25, 0.75]), qubit_order="big")).states
    assert state.fidelity == pytest.approx((2 * math.sqrt(3 / 16)) ** 2)
    assert state.trace_distance == pytest.approx(0.5)
    assert np.allclose(state.bloch_change, [[0, 0, -1]])
    assert state.entropies == (None, None)
    assert "mixed state" in state.left_out["entropies"]


def test_what_does_not_fit_is_said(manager: CheckpointManager) -> None:
    (state,) = compared(manager, vector([1, 0]), vector([1, 0, 0, 0])).states
    assert state.fidelity is None
    assert "dims (2,) and (2, 2)" in state.left_out["fidelity"]
    assert state.bloch_change is None
    assert state.bloch[0] == ((0, 0, 1),)
    assert state.entropy_change is None
    (state,) = compared(manager, vector([1, 0, 0, 0], "unstated"), vector([0, 1, 0, 0])).states
    assert "unstated qubit order" in state.left_out["fidelity"]
    assert "unstated" in state.left_out["bloch"]
    assert state.norms == (1, 1)


def test_qutrits_have_no_bloch_vector(manager: CheckpointManager) -> None:
    a, b = vector([1, 0, 0, 0, 0, 0], dims=[2, 3]), vector([0, 0, 0, 1, 0, 0], dims=[2, 3])
    (state,) = compared(manager, a, b).states
    assert state.bloch_change == ((0, 0, -2), None)
    assert state.left_out["bloch"] == "1 of 2 sites are no qubits, the first of them site 1"
    chains = [qm.MatrixProductState.from_dense(one) for one in (a, b)]
    (of_chains,) = compared(manager, *chains).states
    assert np.allclose(of_chains.bloch_change[0], (0, 0, -2))  # type: ignore[index]
    assert of_chains.bloch_change[1] is None  # type: ignore[index]


@pytest.mark.parametrize("values", [[0, 0], [math.nan, 1], [math.inf, 0]])
@pytest.mark.parametrize("chain", [False, True])
def test_states_that_are_none(manager: CheckpointManager, values: list[float], chain: bool) -> None:
    def made(x: list[float]) -> Any:
        return qm.MatrixProductState([np.array(x, complex).reshape(1, 2, 1)]) if chain else vector(x)

    found = compared(manager, made([1, 0]), made(values))
    assert found.states[0].fidelity is None
    assert "fidelity" in found.states[0].left_out
    json.dumps(found.to_dict(), allow_nan=False)
    assert str(found)


def test_the_same_is_not_read(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    state, weights = vector(random_vector(3, 1)), np.arange(300_000.0)
    first = manager.create_checkpoint(qm.MemoryState(state, classical={"w": weights, "step": 1}))
    second = manager.create_checkpoint(qm.MemoryState(state, classical={"w": weights, "step": 2}))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is read")

    for name in ("read", "read_items", "map"):
        monkeypatch.setattr(CheckpointReader, name, never)
    found = manager.compare_checkpoints(first, second)
    assert not found.same_content
    (same,) = found.states
    assert (same.same, same.fidelity, same.trace_distance, same.bures_angle) == (True, 1, 0, 0)
    assert set(same.left_out) == {"norms", "bloch", "entropies"}
    assert [one.name for one in found.tree.most_changed] == ["step"]
    assert found.shared is not None
    assert found.shared["first_share"] == found.shared["second_share"] == 1


def test_large_vectors_are_read_window_by_window(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 17  # two windows of an array of 2 MiB
    a = random_vector(n, 7)
    b = a.copy()
    b[: 1 << 15] *= 1.5
    with readers(manager, vector(a), vector(b)) as (first, second):
        whole = compare(first, second).states[0]
        taken = []
        read = CheckpointReader.read_items

        def counted(self: CheckpointReader, path: str, start: int, stop: int) -> Any:
            taken.append((self is first, start))
            return read(self, path, start, stop)

        monkeypatch.setattr(CheckpointReader, "read_items", counted)
        monkeypatch.setattr(CheckpointReader, "read", None)
        found = comparing_states.between(
            "quantum",
            *((one, one.document["quantum_data"]) for one in (first, second)),  # type: ignore[arg-type]
            max_bytes=1 << 20,
        )
    for name in ("fidelity", "trace_distance", "bures_distance", "bures_angle", "norms"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    assert set(found.left_out) == {"bloch", "entropies"}
    assert "4194304 bytes" in found.left_out["bloch"]
    # Twice the window that differs, of both; the one that does not, of the first alone.
    assert sorted(taken) == [(False, 0)] * 2 + [(True, 0)] * 2 + [(True, 1 << 16)] * 2


def test_what_is_too_large_and_in_two_orders_is_left_out(manager: CheckpointManager) -> None:
    (state,) = compared(manager, vector([1, 0]), vector([0, 1], "little"), max_bytes=1).states
    assert set(state.left_out) == {"fidelity", "norms", "bloch", "entropies"}
    assert state.fidelity is None


def test_cheap_cuts_go_first(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing_states, "_WORK", 64 * (2 + 2 + 4 + 4))
    (state,) = compared(manager, vector(random_vector(6, 1)), vector(random_vector(6, 2))).states
    assert state.entropies[0] is not None
    assert [one is None for one in state.entropies[0]] == [False, False, True, False, False]
    assert state.entropy_change is not None
    assert state.left_out["entropies"] == "1 of 5 cuts take too long"


def test_limits_of_time_are_said(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LONGEST_VECTOR", "_LONGEST_CUT", "_LARGEST_MATRIX"):
        monkeypatch.setattr(comparing_states, name, 1)
    (state,) = compared(manager, vector([1, 0]), vector([0, 1])).states
    assert set(state.left_out) == {"bloch", "entropies"}
    matrix = qm.DensityMatrix(np.eye(2) / 2, qubit_order="big")
    (state,) = compared(manager, vector([1, 0]), matrix).states
    assert "dimension 2" in state.left_out["fidelity"]


def test_states_in_a_tree(manager: CheckpointManager) -> None:
    a = {"runs": [vector([1, 0]), vector([0, 1])], "other": 1}
    b = {"runs": [vector([1, 0]), vector([1, 0])], "other": 1}
    found = compared(manager, a, b)
    assert [(one.name, one.same, one.fidelity) for one in found.states] == [("runs.0", True, 1), ("runs.1", False, 0)]
    many = [{"s": [vector([1, k]) for k in range(10 + k)]} for k in (0, 1)]
    found = compared(manager, *many)
    assert (len(found.states), found.states_left_out) == (8, 2)
    assert "and 2 more quantum states" in str(found)


# --- leaves


def test_added_removed_changed(manager: CheckpointManager) -> None:
    weights = np.arange(400_000.0)
    moved = weights.copy()
    moved[[3, 300_000]] += [0.5, -2.0]
    old = {"step": 1, "w": weights, "gone": np.zeros(5), "text": "a", "kept": [1, 2]}
    new = {"step": 3, "w": moved, "new": np.zeros(7, np.int8), "text": "b", "kept": [1, 2]}
    tree = compared(manager, old, new).tree
    assert (tree.leaves, tree.added, tree.removed, tree.changed) == ((6, 6), 1, 1, 3)
    assert (tree.first_added, tree.first_removed) == (("new",), ("gone",))
    assert (tree.added_bytes, tree.removed_bytes, tree.changed_bytes) == (7, 40, 16)
    found = {one.name: one for one in tree.most_changed}
    assert list(found) in (["step", "w", "text"], ["w", "step", "text"])
    assert (found["w"].max_delta, found["w"].changed_bytes, found["w"].nbytes) == (2.0, 16, weights.nbytes)
    assert (found["step"].old, found["step"].new, found["step"].max_delta) == (1, 3, 2)
    assert (found["text"].old, found["text"].new, found["text"].max_delta) == ("a", "b", None)


@pytest.mark.parametrize(
    ("old", "new", "delta", "count"),
    [
        (np.array([-(2**63), 5]), np.array([2**63 - 1, 5]), 2**64 - 1, 1),
        (np.array([0, 2**64 - 1], np.uint64), np.array([2**64 - 1, 0], np.uint64), 2**64 - 1, 2),
        (np.array([250, 3], np.uint8), np.array([3, 3], np.uint8), 247, 1),
        (np.array([True, False]), np.array([True, True]), 1, 1),
        (np.array([1.5, 2.0], np.float16), np.array([1.5, -2.0], np.float16), 4, 1),
        (np.array([3.4e38], np.float32), np.array([-3.4e38], np.float32), 6.8e38, 1),
        (np.array([1 + 1j], np.complex64), np.array([4 + 5j], np.complex64), 5, 1),
        (np.array([0.0]), np.array([-0.0]), 0, 1),
        (np.array([np.inf]), np.array([-np.inf]), np.inf, 1),
        (np.array(["2026-01-01"], "M8[D]"), np.array(["2026-01-02"], "M8[D]"), None, None),
        (np.array(["ab"]), np.array(["ac"]), None, None),
    ],
)
def test_deltas_of_every_kind(manager: CheckpointManager, old: Any, new: Any, delta: Any, count: int | None) -> None:
    (leaf,) = compared(manager, {"x": old}, {"x": new}).tree.most_changed
    assert leaf.max_delta == (None if delta is None else pytest.approx(delta, rel=1e-7))
    if count is not None:
        assert leaf.changed_bytes == count * old.itemsize
    else:
        assert 0 < leaf.changed_bytes < old.nbytes


def test_bits_that_are_the_same_do_not_count(manager: CheckpointManager) -> None:
    old, new = np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 2.0])
    (leaf,) = compared(manager, {"x": old}, {"x": new}).tree.most_changed
    assert (leaf.max_delta, leaf.changed_bytes) == (1, 8)


def test_a_number_that_becomes_none_comes_first(manager: CheckpointManager) -> None:
    old = {"x": np.zeros(3), "y": np.zeros(3)}
    new = {"x": np.full(3, 1e9), "y": np.array([0, np.nan, 0])}
    found = compared(manager, old, new)
    assert [one.name for one in found.tree.most_changed] == ["y", "x"]
    assert math.isnan(found.tree.most_changed[0].max_delta or 0)
    assert found.to_dict()["tree"]["most_changed"][0]["max_delta"] == "nan"


def test_another_shape_or_type(manager: CheckpointManager) -> None:
    old = {"a": np.zeros(3), "b": np.zeros(3), "c": np.zeros(2), "d": b"x" * 5000, "e": b"short"}
    new = {"a": np.zeros((3, 1)), "b": np.zeros(3, np.float32), "c": "text", "d": b"y" * 5000, "e": b"other"}
    found = {one.name: one for one in compared(manager, old, new).tree.most_changed}
    assert (found["a"].old, found["a"].new, found["a"].max_delta) == ("f64 3", "f64 3 x 1", None)
    assert (found["b"].new, found["b"].changed_bytes) == ("f32 3", 12)
    assert (found["c"].old, found["c"].new, found["c"].nbytes) == ("f64 2", "text", 0)
    assert (found["d"].old, found["d"].changed_bytes, found["d"].max_delta) == ("bytes 5000", 5000, None)
    assert (found["e"].old, found["e"].new) == ("b'short'", "b'other'")


def test_tensors_and_small_floats(manager: CheckpointManager) -> None:
    import torch

    old = {"w": torch.zeros(3, dtype=torch.bfloat16), "p": torch.nn.Parameter(torch.ones(2))}
    new = {"w": torch.tensor([0, 2, 0], dtype=torch.bfloat16), "p": torch.nn.Parameter(torch.ones(2), False)}
    found = {one.name: one for one in compared(manager, old, new).tree.most_changed}
    assert (found["w"].max_delta, found["w"].changed_bytes, found["w"].new) == (2, 2, "bfloat16 3")
    assert (found["p"].max_delta, found["p"].changed_bytes) == (0, 0)


def test_output_is_bounded_and_totals_are_not(manager: CheckpointManager) -> None:
    old = {f"k{i}": float(i) for i in range(1000)} | {f"old{i}": 0 for i in range(300)}
    new = {f"k{i}": 2.0 * i for i in range(1000)} | {f"new{i}": 0 for i in range(400)}
    found = compared(manager, old, new, most=5)
    assert (found.tree.changed, found.tree.added, found.tree.removed) == (999, 400, 300)
    assert [one.name for one in found.tree.most_changed] == ["k999", "k998", "k997", "k996", "k995"]
    assert len(found.tree.first_added) == len(found.tree.first_removed) == 5
    assert len(str(compared(manager, old, new)).splitlines()) < 60


def test_only_chunks_that_differ_are_read(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    old = np.zeros(10 * CHUNK_BYTES, np.uint8)
    new = old.copy()
    new[3 * CHUNK_BYTES] = 7
    with readers(manager, {"x": old}, {"x": new}) as (first, second):
        taken = []
        read = CheckpointReader.read_items

        def counted(self: CheckpointReader, path: str, start: int, stop: int) -> Any:
            taken.append((start, stop))
            return read(self, path, start, stop)

        monkeypatch.setattr(CheckpointReader, "read_items", counted)
        found = compare(first, second)
    assert taken == [(3 * CHUNK_BYTES, 4 * CHUNK_BYTES)] * 2
    assert (found.tree.changed_bytes, found.tree.most_changed[0].max_delta) == (1, 7)
    assert found.shared == {
        "bytes": CHUNK_BYTES, "first_bytes": CHUNK_BYTES, "second_bytes": 2 * CHUNK_BYTES, "first_share": 1.0,
        "second_share": 0.5,
    }  # fmt: skip


def test_what_a_state_says_of_itself_is_a_leaf(manager: CheckpointManager) -> None:
    tree = compared(manager, vector([1, 0, 0, 0]), vector([1, 0, 0, 0], "little")).tree
    (leaf,) = tree.most_changed
    assert leaf.name == "quantum"
    assert "'big'" in leaf.old
    assert "'little'" in leaf.new


# --- the rest


def test_emotion(manager: CheckpointManager) -> None:
    old = qm.MemoryState(emotion={"pad": [0, 0, 0], "recent_emotions": [[0.0, 0.0, 0.0]]})
    new = qm.MemoryState(emotion={"pad": [0.3, 0.0, -0.4], "trajectory": [[0.0, 0.0, 0.0]] * 4})
    found = compared(manager, old, new)
    assert found.emotion == {
        "pad_distance": pytest.approx(0.5),
        "pad": ([0, 0, 0], [0.3, 0, -0.4]),
        "recent_emotions": (1, 0),
        "trajectory_points": (None, 4),
    }
    assert "PAD distance     0.5" in str(found)
    assert compared(manager, {"a": 1}, {"a": 2}).emotion is None
    half = compared(manager, new, qm.MemoryState(classical={"a": 1})).emotion
    assert half is not None
    assert half["pad_distance"] is None


def test_what_was_said(manager: CheckpointManager) -> None:
    manager.parameters["lr"] = 0.1
    a = manager.create_checkpoint({"x": 1}, "a", progress=1, metrics={"e": 1.0, "nan": math.nan, "f": 1.0})
    manager.parameters["lr"] = 0.2
    b = manager.create_checkpoint({"x": 1}, "b", progress=2, metrics={"e": 2.0, "nan": math.nan})
    found = manager.compare_checkpoints("a", b[:-1])
    assert (found.first, found.second, found.same_content) == (a, b, True)
    assert found.said == {
        "name": ("a", "b"),
        "progress": (1, 2),
        "metrics.e": (1.0, 2.0),
        "metrics.f": (1.0, None),
        "parameters.lr": (0.1, 0.2),
    }


def test_files_of_other_formats(manager: CheckpointManager) -> None:
    memory = qm.MemoryState(vector([1, 0]), classical={"w": np.arange(5.0)})
    other = qm.MemoryState(vector([0, 1]), classical={"w": np.arange(5.0) + 1})
    with manager.folder.reading(manager.create_checkpoint(memory)) as reader:
        found = compare(reader, whole_reader(other, format="json", version=2, name="b.json", size=1))
    assert (found.shared, found.said, found.second) == (None, {}, "b.json")
    assert found.states[0].fidelity == 0
    assert next(one for one in found.tree.most_changed if one.name == "w").max_delta == 1


def test_the_page_fits_a_terminal_and_cannot_steer_it(manager: CheckpointManager) -> None:
    evil = "\x1b[31m" + "long" * 40
    old = {evil: np.zeros(4), "text": "a" * 70, "state": vector([1, 0, 0, 0])}
    new = {evil: np.ones(4), "text": "b" * 70, evil + "2": 1, "state": vector([0, 0, 0, 1], "unstated")}
    a = manager.create_checkpoint(old, evil, metrics={evil: 1.0})
    b = manager.create_checkpoint(new, "b", progress={"epoch": 1, "text": "word " * 30})
    page = str(manager.compare_checkpoints(a, b))
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= 80
    assert page.startswith("different content\n")
    assert "no distances" in page


def test_the_shape_of_its_json_is_stable(manager: CheckpointManager) -> None:
    found = compared(
        manager,
        qm.MemoryState(vector([1, 0]), classical={"a": 1}, emotion={"pad": [0, 0, 0]}),
        qm.MemoryState(vector([0, 1]), classical={"a": 2}, emotion={"pad": [0, 0, 1]}),
    ).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {
        "first", "second", "same_content", "content_ids", "states", "states_left_out", "tree", "emotion", "said",
        "shared",
    }  # fmt: skip
    assert set(found["states"][0]) == {
        "name", "kinds", "same", "fidelity", "trace_distance", "bures_distance", "bures_angle", "norms", "bloch",
        "entropies", "left_out", "bloch_change", "entropy_change",
    }  # fmt: skip
    assert set(found["tree"]) == {
        "leaves", "added", "removed", "changed", "changed_bytes", "added_bytes", "removed_bytes", "first_added",
        "first_removed", "most_changed",
    }  # fmt: skip
    assert set(found["tree"]["most_changed"][0]) == {"name", "old", "new", "nbytes", "changed_bytes", "max_delta"}
    assert set(found["emotion"]) == {"pad_distance", "pad", "recent_emotions", "trajectory_points"}


@pytest.mark.parametrize(
    "other",
    [
        vector(np.eye(4)[0]),
        qm.Operator(np.eye(4), qubit_order="big"),
        qm.MatrixProductState.from_product([[1.0, 0.0]] * 2),
    ],
)
def test_a_tableau_and_a_state_of_another_kind(manager: CheckpointManager, other: Any) -> None:
    zeros = qm.StabilizerState(np.hstack([np.eye(4), np.zeros((4, 1))]).astype(bool))
    found = compared(manager, zeros, other)
    assert "quantum.tableau" in found.tree.first_removed
    assert found.states[0].kinds[0] == "stabilizer state of 2 sites"
    back = compared(manager, {"psi": other}, {"psi": zeros})
    assert back.tree.first_added == ("psi.tableau",)
    assert back.states[0].fidelity == (None if isinstance(other, qm.Operator) else pytest.approx(1))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_of_operators_there_are_no_distances(manager: CheckpointManager, factor: float) -> None:
    first, second = (
        manager.create_checkpoint(qm.MemoryState(qm.Operator(np.eye(2) * scale, qubit_order="big")))
        for scale in (1.0, factor)
    )
    (found,) = manager.compare_checkpoints(first, second).states
    assert (found.same, found.fidelity, found.norms) == (factor == 1.0, None, (None, None))
    assert set(found.left_out.values()) == {"an operator is no state"}
