"""Every format does what every format has to do."""

from typing import ClassVar

import pytest

from quantum_memory.errors import UnsafeError
from quantum_memory.formats import prepared
from quantum_memory.testing.conformance import FormatConformance


class TestQMS(FormatConformance):
    suffix = ".qms"


class TestQMSWithZstd(FormatConformance):
    suffix = ".qms"
    save_options: ClassVar = {"compression": "zstd"}


class TestJSON(FormatConformance):
    suffix = ".json"
    over_budget = UnsafeError  # max_bytes is how long the text may be


class TestPackedJSON(TestJSON):
    suffix = ".json.zlib"


class TestMessagePack(FormatConformance):
    suffix = ".msgpack"


class TestNPZ(FormatConformance):
    suffix = ".npz"


class TestPickle(FormatConformance):
    suffix = ".pkl"
    load_options: ClassVar = {"allow_pickle": True}


class TestBase64(FormatConformance):
    suffix = ".b64"


class TestHDF5(FormatConformance):
    suffix = ".h5"
    unused_bytes = True  # between its parts, and in index nodes that are not full
    every_bit = 211


class TestHDF5WithGzip(TestHDF5):
    save_options: ClassVar = {"compression": "gzip"}
    every_bit = 997


@pytest.fixture
def packs_everything(monkeypatch):
    """Small states are packed as well."""
    monkeypatch.setattr(prepared, "SMALLEST", 0)


@pytest.mark.usefixtures("packs_everything")
class TestQMSPacked(FormatConformance):
    suffix = ".qms"
    save_options: ClassVar = {"effort": "max"}


@pytest.mark.usefixtures("packs_everything")
class TestMessagePackPacked(FormatConformance):
    suffix = ".msgpack"
    save_options: ClassVar = {"effort": "balanced"}


@pytest.mark.usefixtures("packs_everything")
class TestHDF5Packed(TestHDF5):
    save_options: ClassVar = {"effort": "fast"}
    every_bit = 997
