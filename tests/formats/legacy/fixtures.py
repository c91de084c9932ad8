"""Files that the first implementation wrote, and what is known to be in them."""

import json
from pathlib import Path

from quantum_memory.durability.files import ReadableFile
from quantum_memory.formats import legacy

DATA = Path(__file__).parents[2] / "data" / "legacy"
FIXTURES = json.loads((DATA / "manifest.json").read_text())
WHOLE = [entry for entry in FIXTURES if "sections_intact" not in entry and "error" not in entry["expect"]]
BROKEN = [entry for entry in FIXTURES if entry not in WHOLE]
KINDS = {
    "json": "interface-json",
    "json_zlib": "interface-json-zlib",
    "qms": "qms-1",
    "qms_binary_v1": "qms-export",
    "hdf5": "hdf5-store",
    "npz_simple": "simple-npz",
    "serializer_json": "serializer-json",
    "serializer_msgpack": "serializer-msgpack",
    "serializer_base64": "serializer-base64",
    "serializer_pickle": "serializer-pickle",
    "serializer_numpy": "serializer-npz",
}


def read(path, **options):
    with ReadableFile(str(path)) as source:
        return legacy.read(source, **options)
