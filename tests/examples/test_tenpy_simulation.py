"""Simulations of TeNPy that were stopped and go on, compared with TeNPy's own that were not."""

import os
import signal

import numpy as np
import pytest
from tenpy.simulations.ground_state_search import GroundStateSearch
from tenpy.simulations.time_evolution import RealTimeEvolution

from quantum_memory import Always, CheckpointManager, MatrixProductState, MemoryState, Stopped
from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.tenpy_simulation import run_simulation

NEEL = {"method": "lat_product_state", "product_state": [["up"], ["down"]]}


class Killed(Exception):
    """What a run of these tests ends with in the middle."""


class Killing(CheckpointManager):
    """Raises after the third save, which is durable then."""

    def step(self, target, progress=None, **metrics):
        found = super().step(target, progress, **metrics)
        self.wait()
        if progress == 3:
            raise Killed
        return found


def options(engine, bond, **more):
    model = {"L": 6, "Jxx": 1.0, "Jz": 0.7, "hz": 0.1, "bc_MPS": "finite", "sort_charge": True}
    return {
        "model_class": "XXZChain", "model_params": model, "initial_state_params": NEEL,
        "algorithm_params": {"trunc_params": {"chi_max": bond, "svd_min": 1e-8}, **engine}, **more,
    }  # fmt: skip


def evolution(steps, **more):
    return options({"dt": 0.1, "N_steps": 1, "order": 2}, 4, final_time=steps * 0.1, **more)


def search(**more):
    return options({"max_sweeps": 6, "min_sweeps": 6, **more}, 8, connect_measurements=[
        ("tenpy.simulations.measurement", "m_onsite_expectation_value", {"opname": "Sz"})
    ])  # fmt: skip


def started(kind, said, folder, manager=CheckpointManager):
    with manager(folder, save=Always()) as cm:
        return run_simulation(kind, said, cm)


def killed(kind, said, folder):
    with pytest.raises(Killed):
        started(kind, said, folder, Killing)


def straight(kind, said):
    with kind(said, setup_logging=False) as simulation:
        return simulation.run()


def same_tensors(a, b):
    assert [one.form for one in (a, b)] == [a.form] * 2
    assert a.norm == b.norm
    for site in range(a.L):
        one, other = (psi.get_B(site, None) for psi in (a, b))
        assert (one.to_ndarray() == other.to_ndarray()).all()
        assert (a.get_SR(site) == b.get_SR(site)).all()


def test_a_time_evolution_goes_on_bit_for_bit_with_all_measurements(tmp_path):
    killed(RealTimeEvolution, evolution(8), tmp_path)
    ours, theirs = started(RealTimeEvolution, evolution(8), tmp_path), straight(RealTimeEvolution, evolution(8))
    assert set(ours["measurements"]) == set(theirs["measurements"])
    assert len(ours["measurements"]["evolved_time"]) == 9
    assert theirs["measurements"]["eps_error"][3] > 0  # what was cut off before the kill counts
    for name, found in theirs["measurements"].items():
        assert np.array_equal(ours["measurements"][name], found), name
    same_tensors(ours["psi"], theirs["psi"])


def interrupt(results, number, **_):
    """Send a signal to this process while TeNPy measures, in the first run of a test."""
    if results["measurement_index"] == 3 and number:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_signal_saves_at_the_next_checkpoint_of_the_engine(tmp_path, number, raised):
    first, second = (
        evolution(6, connect_measurements=[(__name__, "interrupt", {"number": one})]) for one in (int(number), 0)
    )
    with pytest.raises(raised), CheckpointManager(tmp_path) as cm:
        run_simulation(RealTimeEvolution, first, cm)
    assert [one["progress"] for one in cm.list_checkpoints()] == [3]
    same_tensors(started(RealTimeEvolution, second, tmp_path)["psi"], straight(RealTimeEvolution, second)["psi"])


def test_a_later_end_extends_a_finished_evolution(tmp_path):
    first = started(RealTimeEvolution, evolution(3), tmp_path)
    again = started(RealTimeEvolution, evolution(3), tmp_path)  # nothing is left to do
    assert np.array_equal(first["measurements"]["entropy"], again["measurements"]["entropy"])
    same_tensors(
        started(RealTimeEvolution, evolution(5), tmp_path)["psi"], straight(RealTimeEvolution, evolution(5))["psi"]
    )
    with CheckpointManager(tmp_path) as cm:
        listed = cm.list_checkpoints()
        assert [(one["progress"], one["finished"]) for one in listed if one["finished"]] == [(5, True), (3, True)]
        change = cm.compare_checkpoints(listed[1]["id"], listed[0]["id"])
    assert change.states[0].fidelity == pytest.approx(1)  # the last step, and the end


@pytest.mark.parametrize("conserve", [None, "parity"])
def test_other_charges(tmp_path, conserve):
    said = evolution(5)
    del said["model_params"]["Jxx"], said["model_params"]["Jz"], said["model_params"]["hz"]
    said.update(model_class="TFIChain", model_params={**said["model_params"], "g": 0.8, "conserve": conserve})
    killed(RealTimeEvolution, said, tmp_path)
    same_tensors(started(RealTimeEvolution, said, tmp_path)["psi"], straight(RealTimeEvolution, said)["psi"])


@pytest.mark.parametrize("mixer", [False, True])
def test_a_search_goes_on_from_its_state(tmp_path, mixer):
    killed(GroundStateSearch, search(mixer=mixer), tmp_path)
    ours, theirs = (
        started(GroundStateSearch, search(mixer=mixer), tmp_path),
        straight(GroundStateSearch, search(mixer=mixer)),
    )
    assert ours["energy"] == pytest.approx(theirs["energy"], abs=1e-12)
    assert ours["sweep_stats"]["sweep"].tolist() == theirs["sweep_stats"]["sweep"].tolist()
    assert np.allclose(ours["sweep_stats"]["E"], theirs["sweep_stats"]["E"], atol=1e-12)
    ended = started(GroundStateSearch, search(mixer=mixer), tmp_path)
    assert ended["energy"] == ours["energy"]
    assert ended["finished_run"]
    assert np.array_equal(ended["measurements"]["entropy"], ours["measurements"]["entropy"])
    assert abs(ended["psi"].overlap(ours["psi"])) == pytest.approx(1)


def test_what_is_not_kept_is_refused(tmp_path):
    grouped = evolution(3, group_sites=2, group_to_NearestNeighborModel=True)
    with pytest.raises(InvalidStateError, match="grouped"):
        started(RealTimeEvolution, grouped, tmp_path / "grouped")
    endless = evolution(3)
    endless["model_params"].update(L=2, bc_MPS="infinite")
    with pytest.raises(InvalidStateError, match="infinite"):
        started(RealTimeEvolution, endless, tmp_path / "endless")
    assert not list(tmp_path.glob("*/checkpoints/*.qmcp"))


def test_checkpoints_of_another_run_are_refused(tmp_path):
    started(RealTimeEvolution, evolution(2), tmp_path)
    longer = evolution(4)
    longer["model_params"]["L"] = 8
    with pytest.raises(InvalidStateError, match="the model"):
        started(RealTimeEvolution, longer, tmp_path)
    with CheckpointManager(tmp_path / "other") as cm:
        cm.create_checkpoint(MemoryState(MatrixProductState.from_product([[1.0, 0.0]] * 6), classical={"step": 1}))
    with pytest.raises(InvalidStateError, match="did not take its state"):
        started(RealTimeEvolution, evolution(2), tmp_path / "other")
