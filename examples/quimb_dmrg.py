"""The ground state of a Heisenberg chain by DMRG with quimb: sweeps that may be killed, and a bond that grows later.

    python examples/quimb_dmrg.py --folder run-dmrg --steps 8
    python examples/quimb_dmrg.py --folder run-dmrg --steps 12 --bond-dimension 12

The second command goes on from the state of the first, with a larger bond. What each checkpoint was made with is noted
in it: `cm.list_checkpoints()` shows the parameters.
"""

from __future__ import annotations

import argparse

import numpy as np
import quimb.tensor as qtn

from quantum_memory import Always, CheckpointManager, KeepBest, KeepLast, MatrixProductState


def from_quimb(state: qtn.MatrixProductState) -> MatrixProductState:
    """Return a state of quimb as one of ours: axes (left, physical, right), and outer bonds of dimension 1."""
    state.permute_arrays("lpr")
    first, *middle, last = state.arrays
    return MatrixProductState([first[None], *middle, last[..., None]])


def to_quimb(state: MatrixProductState) -> qtn.MatrixProductState:
    """Return the same for quimb, which alters its tensors: it gets copies."""
    first, *middle, last = (tensor.copy() for tensor in state.tensors)
    return qtn.MatrixProductState([first[0], *middle, last[..., 0]], shape="lpr")


def sweep(
    hamiltonian: qtn.MatrixProductOperator, state: MatrixProductState, bond: int
) -> tuple[MatrixProductState, float]:
    """Sweep once to the left and back over pairs of sites; return the state and its energy."""
    dmrg = qtn.DMRG2(hamiltonian, bond_dims=[bond], cutoffs=1e-10, p0=to_quimb(state))
    # Local problems are solved exactly: an iteration would stop early, where its start vector lets it.
    dmrg.opts.update(local_eig_ham_dense=True, local_eig_tol=0.0)
    dmrg.solve(tol=0.0, max_sweeps=2, sweep_sequence="RL", verbosity=0)
    return from_quimb(dmrg.state), float(np.real(dmrg.energy))


def main() -> None:
    """Start the search, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-dmrg", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=8, help="pairs of sweeps, all in all")
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--bond-dimension", type=int, help="by default what it was; 6 at the start")
    args = parser.parse_args()

    hamiltonian = qtn.MPO_ham_heis(args.sites)
    state = from_quimb(qtn.MPS_neel_state(args.sites))
    step = 0
    update = {} if args.bond_dimension is None else {"bond_dimension": args.bond_dimension}

    with CheckpointManager(
        args.folder,
        save=Always(),  # a sweep takes longer than a save
        keep=KeepLast(3) | KeepBest("energy"),
        parameters={"bond_dimension": 6},
    ) as cm:
        found = cm.resume(update=update)
        if found is not None:
            state, step = found
            print(f"goes on after sweep {step}, bond dimension {state.max_bond_dim}", flush=True)
        bond = cm.parameters["bond_dimension"]
        energy = None
        while step < args.steps:
            state, energy = sweep(hamiltonian, state, bond)
            step += 1
            print(f"sweep {step:3}  bond dimension {state.max_bond_dim:3}  energy {energy:.12f}", flush=True)
            cm.step(state, progress=step, energy=energy)
        if energy is not None:  # it was not done already
            cm.finish(state, progress=step, energy=energy)
        print(f"result {cm.list_checkpoints()[0]['metrics']['energy']!r}")


if __name__ == "__main__":
    main()
