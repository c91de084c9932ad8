"""TeNPy: finite matrix product states. Site 0 comes first.

With conserved charges TeNPy sorts the basis of a site (`Site.perm`); here it is in the order that it has without.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, chain, class_of
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.vidal import with_schmidt_values

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("tenpy",)


def recognizes(value: object) -> bool:
    """Tell whether this is an `MPS`."""
    return class_of(value, "tenpy", ("MPS",)) is not None


def take(value: Any) -> MatrixProductState:
    """Return a finite `MPS`, in right canonical form as TeNPy has it; its norm becomes `log_scale`.

    Charges are not kept: `give` takes the sites to make them anew.

    Raises
    ------
    InvalidStateError
        Its ends are not open, its norm is not positive, it is a purification, or has no canonical form.
    """
    if value.bc != "finite":
        raise InvalidStateError(f"the state has {value.bc} boundaries, and finite ones are kept")
    if not value.norm > 0:
        raise InvalidStateError(f"the norm of the state is {value.norm}")
    if class_of(value, "tenpy", ("PurificationMPS",)):
        raise InvalidStateError("a purification has two legs for each site, and states with one are kept")
    if None in value.form:
        raise InvalidStateError(
            "not all of its tensors are in a canonical form", next_step="psi.canonical_form() makes them so"
        )
    tensors = []
    for index, site in enumerate(value.sites):
        tensor = value.get_B(index, "B").transpose(["vL", "p", "vR"]).to_ndarray()
        tensors.append(tensor[:, np.argsort(site.perm)])
    return MatrixProductState(tensors, canonical_form="right", log_scale=math.log(value.norm))


def give(
    state: QuantumState,
    *,
    sites: Any = None,
    max_bond: int | None = None,
    cutoff: float = 0.0,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Return a finite `tenpy.networks.mps.MPS` in form "B", with its Schmidt values.

    Parameters
    ----------
    sites
        TeNPy's sites, one for each, or one for all: they say which charges are conserved. By default spins without.
    max_bond, cutoff
        As for `MatrixProductState.truncate`. Schmidt values within rounding of zero always go.
    max_bytes
        What the vector of a tableau may take on the way.

    Raises
    ------
    InvalidStateError
        It does not have the charges that the sites conserve, or other sites.
    """
    from tenpy.networks.mps import MPS  # noqa: PLC0415
    from tenpy.networks.site import Site, SpinHalfSite, SpinSite  # noqa: PLC0415

    found = chain(state, "TeNPy", max_bond=max_bond, cutoff=cutoff, max_bytes=max_bytes)
    if sites is None and 1 in found.dims:
        raise InvalidStateError("TeNPy has no spins of one level", next_step="give sites")
    if sites is None:
        kinds = {dim: SpinHalfSite(None) if dim == 2 else SpinSite((dim - 1) / 2, None) for dim in set(found.dims)}
        sites = [kinds[dim] for dim in found.dims]
    elif isinstance(sites, Site):
        sites = [sites] * found.n_sites
    tensors, values, norm = with_schmidt_values(found, max_bond=max_bond, cutoff=cutoff)
    ends = [np.ones(1)]
    try:
        made = MPS.from_Bflat(
            list(sites), [tensor.transpose(1, 0, 2) for tensor in tensors], [*ends, *values, *ends], bc="finite",
            dtype=tensors[0].dtype, permute=True, form="B", unit_cell_width=found.n_sites,
        )  # fmt: skip
    except (ValueError, IndexError, TypeError) as error:
        raise InvalidStateError(
            f"TeNPy does not take it with these sites: {error}", next_step="give sites that conserve nothing, or less"
        ) from error
    made.norm = norm
    return made
