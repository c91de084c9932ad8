"""Addresses in a notebook, whose thread runs an event loop."""

from __future__ import annotations

import asyncio

import numpy as np

import quantum_memory as qm


def test_memories_are_read_and_written_where_an_event_loop_runs(folder_url: str) -> None:
    amplitudes = np.random.default_rng(0).normal(size=1 << 22).astype(np.float32)  # two chunks
    state = qm.StateVector(amplitudes, qubit_order="little")

    async def cell() -> None:
        with qm.transaction(folder_url, n_qubits=22, dtype="float32", qubit_order="little") as tx:
            part = tx.fork()
            part.write(0, amplitudes)
            tx.merge(part)
        found = qm.load(folder_url).quantum
        assert isinstance(found, qm.ShardedStateVector)
        assert found.amplitude("0" * 22) == amplitudes[0]
        assert abs(found.norm() / state.norm() - 1) < 1e-12
        assert found == state

    asyncio.run(cell())


def test_the_event_loop_of_a_program_stays(folder_url: str) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        qm.save(qm.StateVector(np.ones(1 << 18), qubit_order="little"), folder_url)
        qm.load(folder_url)
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
