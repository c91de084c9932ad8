"""Records of outcomes, the cache that keeps them, and the correction of readout errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.measurement import MeasurementCache, MeasurementRecord, measure, mitigate
from quantum_memory.encoding.noise import KrausChannel, NoiseModel, ReadoutError
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.quantum_state import StateVector

outcomes = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 1))


@given(outcomes)
def test_packing_loses_nothing(bits):
    record = MeasurementRecord.of(bits)
    np.testing.assert_array_equal(record.bits, bits)
    assert record.packed.nbytes == -(-bits.size // 8)
    assert sum(record.counts().values()) == len(bits)


def test_a_shot_of_27_qubits_takes_3_4_bytes():
    record = measure(PADEncoding(27).encode((0.1, 0.2, 0.3)), 1024, seed=1)
    assert record.packed.nbytes / record.shots == 3.375


def test_counts_spell_qubit_0_first_and_the_most_frequent_first():
    assert list(MeasurementRecord.of([[0, 0, 1], [1, 1, 0], [1, 1, 0]]).counts().items()) == [("110", 2), ("001", 1)]


def test_a_seed_repeats_the_measurement_and_is_recorded():
    state = PADEncoding(9).encode((0.1, -0.5, 0.3))
    noise = NoiseModel((KrausChannel.depolarizing(0.1),), ReadoutError(0.02, 0.05))
    first, again = (measure(state, 200, seed=5, noise=noise, timestamp="2026-01-31T12:00:00Z") for _ in range(2))
    assert first == again
    assert (first.seed, first.noise, first.timestamp) == (5, noise, "2026-01-31T12:00:00Z")
    assert first != measure(state, 200, seed=6, noise=noise, timestamp="2026-01-31T12:00:00Z")
    assert measure(state, 200, seed=np.random.default_rng(5)).seed is None


@pytest.mark.parametrize("order", ["little", "big"])
def test_column_i_is_qubit_i_whatever_the_order_of_the_state(order):
    amplitudes = np.zeros(8)
    amplitudes[0b001 if order == "little" else 0b100] = 1  # qubit 0 is 1
    assert measure(StateVector(amplitudes, qubit_order=order), 3).counts() == {"100": 3}


def test_records_and_caches_survive_their_trees():
    noise = NoiseModel((KrausChannel.dephasing(0.1),), ReadoutError((0.1, 0.2, 0.3), 0.1))
    records = [
        MeasurementRecord.of(np.eye(3, dtype=np.uint8), seed=2**70, timestamp="t", noise=noise),
        MeasurementRecord.of([[1], [0]]),
    ]
    for record in records:
        assert MeasurementRecord.from_tree(record.to_tree()) == record
    cache = MeasurementCache(7, records)
    assert MeasurementCache.from_tree(cache.to_tree()) == cache
    assert cache != MeasurementCache(8, records)
    assert cache.to_tree()["records"][0]["packed"].dtype == np.uint8


def test_the_cache_keeps_the_newest():
    cache = MeasurementCache()
    assert cache.capacity == 100
    records = [MeasurementRecord.of([[k >> 7 & 1, k & 1]], seed=k) for k in range(130)]
    for record in records:
        cache.append(record)
    assert list(cache) == records[30:]
    assert (len(cache), cache[0].seed, cache[-1].seed) == (100, 30, 129)


def test_mitigation_of_single_qubits_is_the_affine_inverse():
    bits = np.array([[0, 1], [1, 1], [0, 1], [0, 0]])
    z = mitigate(bits, ReadoutError((0.02, 0.1), (0.05, 0.0))).mean(axis=0)
    np.testing.assert_allclose(z, [(0.5 - 0.03) / 0.93, (-0.5 + 0.1) / 0.9], atol=1e-15)


def test_mitigation_of_the_chain_is_the_closed_form():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (500, 4))
    e0, e1 = np.array([0.02, 0.1, 0.0, 0.07]), np.array([0.05, 0.0, 0.2, 0.07])
    b, c, s = e1 - e0, 1 - e0 - e1, 1 - 2 * bits
    m = s.mean(axis=0)
    expected = [(m[0] - b[0]) / c[0]] + [
        ((s[:, i - 1] * s[:, i]).mean() - b[i] * m[i - 1] - b[i - 1] * m[i] + b[i - 1] * b[i]) / (c[i - 1] * c[i])
        for i in range(1, 4)
    ]
    z = mitigate(bits, ReadoutError(tuple(e0), tuple(e1)), Entangler.cnot_chain(4)).mean(axis=0)
    np.testing.assert_allclose(z, expected, atol=1e-14)


def test_mitigation_is_unbiased_behind_any_entangler():
    entangler = Entangler(3, (("X", (1,)), ("CNOT", (0, 2)), ("CZ", (0, 1)), ("CNOT", (2, 1)), ("CP", (1, 2), 0.4)))
    code = PADEncoding(3, entangler=entangler)
    error = ReadoutError((0.03, 0.1, 0.2), (0.1, 0.02, 0.15))
    rng = np.random.default_rng(2)
    bits = error.apply_to_bits(code.encode((0.8, -0.3, 0.1)).sample(200_000, rng), rng)
    z = mitigate(bits, error, entangler).mean(axis=0)
    np.testing.assert_allclose(z, np.sin(np.pi / 2 * np.array([0.8, -0.3, 0.1])), atol=0.015)


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidStateError, match="not bits"):
        MeasurementRecord.of([[0, 2]])
    with pytest.raises(InvalidStateError, match="not bits"):
        MeasurementRecord.of([[0.0, 1.0]])
    with pytest.raises(InvalidStateError, match="at least one shot"):
        MeasurementRecord.of(np.zeros((0, 3), dtype=np.uint8))
    with pytest.raises(InvalidStateError, match="is not 2 shots"):
        MeasurementRecord(np.zeros(1, dtype=np.uint8), n_qubits=9, shots=2)
    with pytest.raises(InvalidStateError, match="not zero"):
        MeasurementRecord(np.array([0b00000001], dtype=np.uint8), n_qubits=7, shots=1)
    with pytest.raises(InvalidStateError, match="says nothing"):
        mitigate([[0, 1]], ReadoutError(0.5, 0.5))
    with pytest.raises(InvalidStateError, match="an entangler of 3"):
        mitigate([[0, 1]], ReadoutError(0.1, 0.1), Entangler.none(3))
    with pytest.raises(InvalidStateError, match="at least once"):
        measure(PADEncoding(3).encode((0, 0, 0)), 0)
    with pytest.raises(InvalidStateError, match="keep at least one"):
        MeasurementCache(0)
    with pytest.raises(InvalidStateError, match="not the tree"):
        MeasurementRecord.from_tree({"packed": [1]})
    with pytest.raises(InvalidStateError, match="not the tree"):
        MeasurementCache.from_tree({"capacity": None})
