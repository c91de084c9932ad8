"""What else the libraries return, and how they return it: each comes in as it is, or is refused by one of our errors."""

import numpy as np
import pytest
import quimb
import quimb.tensor as qtn
from tenpy.networks.mps import MPS
from tenpy.networks.purification_mps import PurificationMPS
from tenpy.networks.site import BosonSite, SpinHalfSite

import quantum_memory as qm
from quantum_memory.errors import BudgetError, InvalidStateError

CNOT = quimb.controlled("not")


def taken(value, framework=None):
    return qm.MemoryState.of(value, framework).quantum


# --- quimb


def mps(n=5, bond=3, **options):
    return qtn.MPS_rand_state(n, bond, dtype="complex128", seed=1, **options)


@pytest.mark.parametrize(
    "chain",
    [
        mps().flip(),
        mps().swap_sites_with_compress(0, 3),
        mps().gate_nonlocal(CNOT, (0, 3)),
        mps().measure(2, remove=True, seed=1)[1],
        mps(site_ind_id="b{}", site_tag_id="S{}"),
        mps().reindex({"k1": "x"}).reindex({"x": "k1"}),
        mps().equalize_norms(1.0),
        mps(1),
    ],
    ids=["flip", "swap", "gate", "measure", "names", "reindex", "exponent", "one site"],
)
def test_a_chain_of_quimb_is_taken_by_its_sites_whatever_the_order_of_its_tensors(chain):
    found = taken(chain).to_dense(qubit_order="big").amplitudes
    assert found == pytest.approx(chain.to_dense().ravel(), abs=1e-12)


def test_the_exponent_of_one_site_counts():
    chain = mps(1)
    chain.exponent = 2.0
    assert taken(chain).norm() == pytest.approx(100)


@pytest.mark.parametrize(
    "chain",
    [
        mps().gate(quimb.hadamard(), 1, contract=False),
        mps().gate(CNOT, (1, 2), contract=True),
        mps().gate(CNOT, (1, 2), contract="split-gate"),
        mps().reindex({"k0": "other"}),
        mps().select(["I0", "I1"], which="any"),
    ],
    ids=["gate beside it", "two sites in one", "split gate", "other index", "some sites"],
)
def test_a_chain_of_quimb_that_is_none_is_refused(chain):
    with pytest.raises(InvalidStateError, match="has not one tensor"):
        taken(chain)


def test_a_wide_network_is_not_made_dense():
    circuit = qtn.Circuit(40)
    circuit.h(0)
    with pytest.raises(BudgetError, match="vector of 40 sites") as caught:
        taken(circuit)
    assert "max_bytes" not in caught.value.next_step


@pytest.mark.parametrize("name", ["quimb", "tenpy"])
def test_a_wide_tableau_becomes_a_chain_only_where_its_vector_fits(name):
    zeros = qm.MemoryState(qm.StabilizerState(np.eye(12, 13, dtype=bool)))
    options = {"mps": True} if name == "quimb" else {}
    with pytest.raises(BudgetError, match="state vector of 6 qubits"):
        zeros.to(name, **options, max_bytes=1000)
    assert taken(zeros.to(name, **options, max_bytes=1024)).max_bond_dim == 1


# --- TeNPy


SPIN = SpinHalfSite(None)


def product(**options):
    return MPS.from_product_state([SPIN] * 3, ["up"] * 3, unit_cell_width=3, **{"bc": "finite", **options})


def test_what_of_tenpy_has_no_place_is_refused():
    with pytest.raises(InvalidStateError, match="two legs"):
        taken(PurificationMPS.from_infiniteT([SPIN] * 3, bc="finite", unit_cell_width=3))
    tensors = [product().get_B(site) for site in range(3)]
    loose = MPS([SPIN] * 3, tensors, [np.ones(1)] * 4, bc="finite", form=None, unit_cell_width=3)
    with pytest.raises(InvalidStateError, match="canonical form"):
        taken(loose)
    loose.canonical_form()
    assert taken(loose).norm() == pytest.approx(1)


@pytest.mark.parametrize("sites", [BosonSite(2), [SPIN] * 2, 3])
def test_other_sites_than_the_state_has_are_refused(sites):
    with pytest.raises(InvalidStateError, match="with these sites"):
        qm.MemoryState.of(product()).to("tenpy", sites=sites)


def test_sites_of_one_level():
    state = qm.MatrixProductState([np.ones((1, 1, 1)), np.eye(2)[:1, :, None]])
    with pytest.raises(InvalidStateError, match="one level"):
        qm.MemoryState(state).to("tenpy")
