"""The durable memory of a quantum computation.

Save, verify, compress and compare quantum states together with the classical data around them::

    import quantum_memory as qm

    qm.save(state, "ghz.qms")
    memory = qm.load("ghz.qms")

Names are imported when first used, so that ``import quantum_memory`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantum_memory._version import __version__

_HOMES = {
    "compare": "formats.compare",
    "convert": "formats.convert",
    "convert_all": "formats.convert_all",
    "info": "formats.verbs",
    "load": "formats.verbs",
    "open": "formats.verbs",
    "recompress": "formats.convert",
    "save": "formats.verbs",
    "repository": "cloud.verbs",
    "transaction": "cloud.verbs",
    "verify": "formats.verify_all",
    "verify_all": "formats.verify_all",
    "verify_certificate": "formats.certify",
    "BackgroundCompressor": "formats.background",
    "BinaryFormatHandler": "formats.binary_format",
    "HDF5QuantumStorage": "formats.hdf5_storage",
    "QuantumStateSerializer": "formats.state_serializer",
    "EmotionalStateSerializer": "formats.state_serializer",
    "MPSTensorSerializer": "formats.state_serializer",
    "QuantumClassicalInterface": "quantum_classical_interface",
    "BackupManager": "lifecycle.backup_manager",
    "Ladder": "lifecycle.recovery",
    "CheckpointManager": "lifecycle.checkpoint_manager",
    "Stopped": "lifecycle.checkpoints.signals",
    "Functions": "lifecycle.checkpoints.targets",
    "Randomness": "lifecycle.checkpoints.randomness",
    "Always": "lifecycle.due",
    "EverySeconds": "lifecycle.due",
    "EverySteps": "lifecycle.due",
    "AtSteps": "lifecycle.due",
    "WhenBetter": "lifecycle.due",
    "KeepAll": "lifecycle.retention",
    "KeepLast": "lifecycle.retention",
    "KeepEvery": "lifecycle.retention",
    "KeepWithin": "lifecycle.retention",
    "KeepBest": "lifecycle.retention",
    "KeepHourly": "lifecycle.retention",
    "KeepDaily": "lifecycle.retention",
    "KeepWeekly": "lifecycle.retention",
    "KeepMonthly": "lifecycle.retention",
    "KeepYearly": "lifecycle.retention",
    "KeepTagged": "lifecycle.retention",
    "KeepManual": "lifecycle.retention",
    "MigrationUtilities": "lifecycle.migration.utilities",
    "VersionManager": "lifecycle.version_manager",
    "MemoryState": "state.memory_state",
    "ShardedStateVector": "state.sharded_state",
    "StateVector": "state.quantum_state",
    "DensityMatrix": "state.quantum_state",
    "MatrixProductState": "state.matrix_product_state",
    "StabilizerState": "state.stabilizer_state",
    "Operator": "state.operator",
    "PAD": "state.pad",
    "PADScale": "state.pad",
    "EmotionalContext": "state.emotional_state",
    "Trajectory": "state.emotional_state",
    "PADEncoding": "encoding.pad_encoding",
    "Key": "encryption.keys",
    "QuantumMemoryError": "errors",
    "InvalidStateError": "errors",
    "IntegrityError": "errors",
    "UnsupportedVersionError": "errors",
    "MissingError": "errors",
    "MissingFileError": "errors",
    "ConflictError": "errors",
    "StorageError": "errors",
    "UnsafeError": "errors",
    "BudgetError": "errors",
    "WrongKeyError": "errors",
    "metrics": "state.metrics",
    "circuit_of": "interop.provenance",
    "provenance": "interop.provenance",
}

__all__ = [  # noqa: RUF022 - as in _HOMES
    "__version__",
    "compare",
    "convert",
    "convert_all",
    "info",
    "load",
    "recompress",
    "repository",
    "save",
    "transaction",
    "verify",
    "verify_all",
    "verify_certificate",
    "BackgroundCompressor",
    "BinaryFormatHandler",
    "HDF5QuantumStorage",
    "QuantumStateSerializer",
    "EmotionalStateSerializer",
    "MPSTensorSerializer",
    "QuantumClassicalInterface",
    "BackupManager",
    "Ladder",
    "CheckpointManager",
    "Stopped",
    "Functions",
    "Randomness",
    "Always",
    "EverySeconds",
    "EverySteps",
    "AtSteps",
    "WhenBetter",
    "KeepAll",
    "KeepLast",
    "KeepEvery",
    "KeepWithin",
    "KeepBest",
    "KeepHourly",
    "KeepDaily",
    "KeepWeekly",
    "KeepMonthly",
    "KeepYearly",
    "KeepTagged",
    "KeepManual",
    "MigrationUtilities",
    "VersionManager",
    "MemoryState",
    "ShardedStateVector",
    "StateVector",
    "DensityMatrix",
    "MatrixProductState",
    "StabilizerState",
    "Operator",
    "PAD",
    "PADScale",
    "EmotionalContext",
    "Trajectory",
    "PADEncoding",
    "Key",
    "QuantumMemoryError",
    "InvalidStateError",
    "IntegrityError",
    "UnsupportedVersionError",
    "MissingError",
    "MissingFileError",
    "ConflictError",
    "StorageError",
    "UnsafeError",
    "BudgetError",
    "WrongKeyError",
    "metrics",
    "circuit_of",
    "provenance",
]

if TYPE_CHECKING:
    from quantum_memory.cloud.verbs import repository, transaction
    from quantum_memory.encoding.pad_encoding import PADEncoding
    from quantum_memory.encryption.keys import Key
    from quantum_memory.errors import (
        BudgetError,
        ConflictError,
        IntegrityError,
        InvalidStateError,
        MissingError,
        MissingFileError,
        QuantumMemoryError,
        StorageError,
        UnsafeError,
        UnsupportedVersionError,
        WrongKeyError,
    )
    from quantum_memory.formats.background import BackgroundCompressor
    from quantum_memory.formats.binary_format import BinaryFormatHandler
    from quantum_memory.formats.certify import verify_certificate
    from quantum_memory.formats.compare import compare
    from quantum_memory.formats.convert import convert, recompress
    from quantum_memory.formats.convert_all import convert_all
    from quantum_memory.formats.hdf5_storage import HDF5QuantumStorage
    from quantum_memory.formats.state_serializer import (
        EmotionalStateSerializer,
        MPSTensorSerializer,
        QuantumStateSerializer,
    )
    from quantum_memory.formats.verbs import info, load, save
    from quantum_memory.formats.verbs import open as open  # noqa: A004 - not in __all__, which would hide Python's own
    from quantum_memory.formats.verify_all import verify, verify_all
    from quantum_memory.interop.provenance import circuit_of, provenance
    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
    from quantum_memory.lifecycle.checkpoints.randomness import Randomness
    from quantum_memory.lifecycle.checkpoints.signals import Stopped
    from quantum_memory.lifecycle.checkpoints.targets import Functions
    from quantum_memory.lifecycle.due import Always, AtSteps, EverySeconds, EverySteps, WhenBetter
    from quantum_memory.lifecycle.migration.utilities import MigrationUtilities
    from quantum_memory.lifecycle.recovery import Ladder
    from quantum_memory.lifecycle.retention import (
        KeepAll,
        KeepBest,
        KeepDaily,
        KeepEvery,
        KeepHourly,
        KeepLast,
        KeepManual,
        KeepMonthly,
        KeepTagged,
        KeepWeekly,
        KeepWithin,
        KeepYearly,
    )
    from quantum_memory.lifecycle.version_manager import VersionManager
    from quantum_memory.quantum_classical_interface import QuantumClassicalInterface
    from quantum_memory.state import metrics
    from quantum_memory.state.emotional_state import EmotionalContext, Trajectory
    from quantum_memory.state.matrix_product_state import MatrixProductState
    from quantum_memory.state.memory_state import MemoryState
    from quantum_memory.state.operator import Operator
    from quantum_memory.state.pad import PAD, PADScale
    from quantum_memory.state.quantum_state import DensityMatrix, StateVector
    from quantum_memory.state.sharded_state import ShardedStateVector
    from quantum_memory.state.stabilizer_state import StabilizerState


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{home}")
    value = module if name == "metrics" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
