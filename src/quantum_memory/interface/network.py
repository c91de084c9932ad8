"""The weights of the classical network that an interface carries along."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError

if TYPE_CHECKING:
    import os


def takes_weights(network: object) -> bool:
    """Tell whether a network has the pair of methods of a torch module."""
    return hasattr(network, "state_dict") and hasattr(network, "load_state_dict")


def weights_of(network: Any) -> Any:
    """Return what is saved of a network: its ``state_dict()``, or the tree that it is."""
    return network.state_dict() if takes_weights(network) else network


def load_weights(network: Any, weights: Any, path: str | os.PathLike[str] | None) -> None:
    """Give weights to a network, or leave it as it was and say why not."""
    if not takes_weights(network):
        raise InvalidStateError(
            f"a {type(network).__name__} has no load_state_dict", next_step="read the weights from .network instead"
        )
    if hasattr(network, "parameters") and isinstance(weights, dict):
        import torch  # noqa: PLC0415 - it is there, since the network is one of its modules

        # The first implementation saved lists, which are arrays by now.
        weights = {
            name: torch.from_numpy(one.copy()) if isinstance(one, np.ndarray) else one for name, one in weights.items()
        }
    before = copy.deepcopy(network.state_dict())
    try:
        network.load_state_dict(weights)
    except BaseException as error:
        # torch copies what fits before it complains about what does not.
        network.load_state_dict(before)
        if not isinstance(error, Exception):
            raise
        raise InvalidStateError(
            f"the saved weights do not fit the network: {error}", path=path, next_step="give the network that was saved"
        ) from error
