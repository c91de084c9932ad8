"""What is fuzzed: each parser, and what makes its inputs.

What is read of files is read from memory here, by what promises that nothing but an error of ours comes out: innermost
parsers in great numbers, and whole loads.
"""

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass

from quantum_memory.encryption import envelope
from quantum_memory.formats import qms_bytes, qms_layout
from quantum_memory.lifecycle.backups import export_file
from quantum_memory.lifecycle.backups import manifest as backups
from quantum_memory.lifecycle.checkpoints import manifest as checkpoints
from quantum_memory.testing.fuzzing import Mutator

from . import folder_inputs as folders
from . import state_inputs as states
from .goldens import FIRST, KEY, sealer_of
from .inputs import source


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes
    ----------
    times
        How many inputs it is given each time.
    read
        What reads one.
    make
        What makes one.
    of_file
        Whether what it reads is a file, which errors are to name.
    """

    times: int
    read: Callable[[bytes], object]
    make: Callable[[Mutator], bytes]
    of_file: bool = True


def with_key(data: bytes) -> None:
    envelope.read_lock(source(data), KEY)


def manifest_of_a_backup(name: str, data: bytes) -> None:
    backups.read_manifest(source(data), FIRST, sealer_of(name))


part = functools.partial
TARGETS = {
    "chunks": Target(1_150_000, states.read_chunk, states.made_chunk, of_file=False),
    "tables of QMS": Target(330_000, lambda data: qms_layout.read_layout(source(data)), states.made_table),
    "bytes of QMS": Target(60_000, lambda data: qms_bytes.is_whole(source(data)), states.made_table),
    "QMS": Target(10_000, part(states.read_as, "qms"), states.made_qms),
    "documents": Target(40_000, states.read_document, states.made_document),
    "JSON": Target(15_000, part(states.read_as, "json"), states.made_json),
    "JSON with zlib": Target(8_000, part(states.read_as, "json.zlib"), states.made_packed_json),
    "MessagePack": Target(40_000, part(states.read_as, "msgpack"), part(states.made_tree, "msgpack")),
    "Base64": Target(5_000, part(states.read_as, "b64"), lambda m: base64.b64encode(states.made_tree("msgpack", m))),
    "pickles": Target(30_000, part(states.read_as, "pkl"), part(states.made_tree, "pkl")),
    "archives": Target(10_000, part(states.read_as, "npz"), states.made_archive),
    "manifests of checkpoints": Target(
        12_000, lambda data: checkpoints.read_manifest(source(data)), part(folders.made_manifest, "plain", ".qmcp")
    ),
    "manifests of backups": Target(
        10_000, part(manifest_of_a_backup, "v1"), part(folders.made_manifest, "plain", ".qmbk")
    ),
    "encrypted manifests": Target(
        5_000, part(manifest_of_a_backup, "v1-sealed"), part(folders.made_manifest, "sealed", ".qmbk")
    ),
    "packs": Target(250_000, folders.read_pack, folders.made_pack),
    "notes": Target(30_000, folders.read_note, folders.made_note),
    "exports": Target(3_000, lambda data: export_file.ExportFile(source(data), None), folders.made_export),
    "envelopes": Target(20_000, with_key, folders.made_envelope),
    "plans": Target(8_000, folders.read_plan, folders.made_plan),
    "journals": Target(90_000, folders.read_line, folders.made_line, of_file=False),
    "old files": Target(10_000, states.read_old, states.made_old),
    "descriptions": Target(10_000, states.read_description, states.made_description, of_file=False),
}
