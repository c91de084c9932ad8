"""TeNPy's simulations, saved at their own checkpoints into a folder of a `CheckpointManager`.

In each are the state, as a matrix product state that can be compared, and beside it what TeNPy needs to have the same
tensors again: Schmidt values, charges, and the norm. So are all measurements, how far the engine was, and what has been
cut off. A time evolution goes on bit for bit. A search goes on from its state, of which TeNPy computes environments
again, and these have other last digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.tenpy_states import take
from quantum_memory.state.memory_state import MemoryState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenpy.simulations.simulation import Simulation as _Base

    from quantum_memory.state.matrix_product_state import MatrixProductState
else:
    _Base = object

_COUNTERS = ("evolved_time", "sweeps")
"""What engines have in their `resume_data` beside states and environments."""


def run_simulation(kind: Any, options: Mapping[str, Any], manager: Any) -> dict[str, Any]:
    """Run a simulation of TeNPy, or go on with it, and return its results.

    At every checkpoint of the engine ``manager.step`` is asked whether to save. The progress is the number of these
    checkpoints; at the end of the run it is saved in any case.

    Parameters
    ----------
    kind
        The class: `RealTimeEvolution`, `GroundStateSearch`, or a subclass of one.
    options
        As TeNPy takes them. They are not in the checkpoint: a run that goes on gets those that are given then, such as
        a later `final_time`. Logging is not set up.
    manager
        A `CheckpointManager`.

    Returns
    -------
    dict
        The results as TeNPy returns them. Measurements are those of the whole run. Those of a search that had ended
        are as they were; it is not run again.

    Raises
    ------
    InvalidStateError
        The state has boundaries that are not finite, or the sites are grouped, or the engine keeps other states; or the
        model has other sites than the state that was saved; or what was saved is not of a simulation.
    """
    connected = type(f"Saved{kind.__name__}", (_Saved, kind), {})
    with connected(dict(options), setup_logging=False) as simulation:
        simulation.manager = manager
        found = manager.resume(simulation)
        if found is not None:
            simulation.checkpoints = found.progress
        before = simulation.had_ended, simulation.checkpoints
        results = simulation.run() if found is None else simulation.resume_run()
        if before != (True, simulation.checkpoints):
            simulation.had_ended = True
            manager.finish(simulation, progress=simulation.checkpoints)
    return cast("dict[str, Any]", results)


class _Saved(_Base):  # type: ignore[misc]
    """What a simulation is beside its own class; the checkpoint manager sees it as an object that remembers."""

    manager: Any = None
    checkpoints = 0
    had_ended = False
    saved: MemoryState | None = None

    def to_memory(self) -> MemoryState:
        """Return all that a run depends on; of one that has not begun, what it was given."""
        if not hasattr(self, "engine"):
            return MemoryState() if self.saved is None else self.saved
        kept = self.engine.get_resume_data()
        if self.grouped != 1 or "orthogonal_to" in kept:
            raise InvalidStateError(
                "sites are grouped, or states are kept away from", next_step="save with TeNPy's own output_filename"
            )
        state, exact = _taken(self.psi)
        engine: dict[str, Any] = {name: kept[name] for name in _COUNTERS if name in kept}
        if hasattr(self.engine, "trunc_err"):
            engine["trunc_err"] = [self.engine.trunc_err.eps, self.engine.trunc_err.ov]
        if hasattr(self.engine, "sweep_stats"):
            engine["sweep_stats"] = {name: list(found) for name, found in self.engine.sweep_stats.items()}
        said = {
            "exact": exact,
            "engine": engine,
            "measurements": {name: list(found) for name, found in self.results.get("measurements", {}).items()},
            "energy": self.results.get("energy"),
            "ended": self.had_ended,
        }
        return MemoryState(state, classical=said)

    def restore_memory(self, memory: MemoryState) -> None:
        """Take what `to_memory` gave, before the run begins."""
        self.saved = memory
        _read(self.options)
        if memory.quantum is None:
            return
        said = memory.classical
        ended, measured, energy = said["ended"], said["measurements"], said["energy"]
        self.loaded_from_checkpoint = True
        self.had_ended = ended
        if measured:
            self.results["measurements"] = {name: list(found) for name, found in measured.items()}
        if energy is not None:
            self.results["energy"] = energy

    def init_model(self) -> None:
        """Make the model, and with its sites the state that was saved."""
        super().init_model()
        if self.saved is not None and not hasattr(self, "psi"):
            self.psi = _given(self.saved, self.model.lat.mps_sites())
            counters = {name: found for name, found in self.saved.classical["engine"].items() if name in _COUNTERS}
            self.results["resume_data"] = {"psi": self.psi, **counters}

    def init_algorithm(self, **kwargs: Any) -> None:
        """Make the engine, and give it what TeNPy would have it count from zero again."""
        super().init_algorithm(**kwargs)
        if self.saved is None:
            return
        _read(self.options)
        engine = self.saved.classical["engine"]
        if "trunc_err" in engine:
            self.engine.trunc_err = type(self.engine.trunc_err)(*engine["trunc_err"])
        for name, found in engine.get("sweep_stats", {}).items():
            self.engine.sweep_stats[name].extend(found)

    def save_at_checkpoint(self, alg_engine: Any) -> None:
        """Do what TeNPy does, and save if it is time to."""
        self.checkpoints += 1
        if self.received_signal_sigint:  # TeNPy stops here
            self.manager.create_checkpoint(self, progress=self.checkpoints, automatic=True)
        super().save_at_checkpoint(alg_engine)
        self.manager.step(self, progress=self.checkpoints)

    def resume_run(self) -> Any:
        """Go on; a search that has ended has nothing to do, and TeNPy's engine would fail at that."""
        if self.had_ended and "energy" in self.results:
            self.init_model()
            self.init_state()
            self.results["finished_run"] = True
            del self.results["resume_data"]
            self.options["save_resume_data"] = False  # there is no engine that could be asked
            _read(self.options)
            return self.prepare_results_for_save()
        self.had_ended = False
        return super().resume_run()


def _read(options: Any) -> None:
    """Keep TeNPy from warning of options that nobody needed: a run that goes on may have nothing left to do."""
    for name in options.keys():  # noqa: SIM118 - not a mapping
        found = options[name]
        if hasattr(found, "touch"):
            _read(found)


def _taken(psi: Any) -> tuple[MatrixProductState, dict[str, Any]]:
    """Return a state, and what is lost in it."""
    if any(form != (0.0, 1.0) for form in psi.form) or any(np.ndim(psi.get_SL(i)) != 1 for i in range(psi.L)):
        psi = psi.copy()  # in the middle of a search: the engine goes on with the one that it has
        psi.canonical_form()
    state = take(psi)
    tensors = [psi.get_B(site, None) for site in range(psi.L)]
    legs = [tensors[0].get_leg("vL"), *(one.get_leg("vR") for one in tensors)]
    return state, {
        "schmidt_values": [*(psi.get_SL(site) for site in range(psi.L)), psi.get_SR(psi.L - 1)],
        "norm": float(psi.norm),
        "unit_cell_width": psi.unit_cell_width,
        "legs": [{"slices": leg.slices, "charges": leg.charges, "direction": int(leg.qconj)} for leg in legs],
        "charges": [one.qtotal for one in tensors],
    }


def _given(memory: MemoryState, sites: list[Any]) -> Any:
    """Return the same state again, block by block."""
    import tenpy.linalg.np_conserved as npc  # noqa: PLC0415
    from tenpy.linalg.charges import LegCharge  # noqa: PLC0415
    from tenpy.networks.mps import MPS  # noqa: PLC0415

    exact = memory.classical["exact"]
    kinds = sites[0].leg.chinfo
    first, *rights = (
        LegCharge.from_qind(kinds, leg["slices"], leg["charges"], leg["direction"]) for leg in exact["legs"]
    )
    lefts = [first, *(leg.conj() for leg in rights)]
    state = cast("MatrixProductState", memory.quantum)
    if list(state.dims) != [site.dim for site in sites]:
        raise InvalidStateError(
            f"the state has the sites {list(state.dims)}, and the model {[site.dim for site in sites]}",
            next_step="go on with the model that the run was started with, or in another folder",
        )
    tensors = []
    for site, tensor, left, right, charge in zip(sites, state.tensors, lefts, rights, exact["charges"], strict=False):
        legs, labels = [left, site.leg, right], ["vL", "p", "vR"]
        made = npc.Array.from_ndarray(tensor[:, site.perm], legs, qtotal=charge, labels=labels)
        tensors.append(made.ipurge_zeros(0.0))  # a block of zeros is one that TeNPy did not have
    return MPS(
        sites, tensors, exact["schmidt_values"], bc="finite", form="B", norm=exact["norm"],
        unit_cell_width=exact["unit_cell_width"],
    )  # fmt: skip
