"""PAD values of old files: on the bipolar scale in the memory, and as they were in its classical part."""

import json
from fractions import Fraction

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability.files import ReadableFile
from quantum_memory.formats import legacy

from .fixtures import DATA


def exactly(point):
    """Return what a point of the first implementation is on [-1, 1], each number rounded once."""
    pleasure, *others = point
    return (pleasure, *(float(2 * Fraction(one) - 1) for one in others))


def saved(tmp_path, cache, **others):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"interface_config": {"n_qubits": 3}, "measurement_cache": cache, **others}))
    return path


@pytest.mark.parametrize("path", sorted(DATA.glob("json_v[12]/*.json")), ids=lambda path: path.stem)
def test_the_emotions_of_an_interface_are_converted_and_kept(path):
    old, new = json.loads(path.read_text()), qm.load(path)
    cache = old["measurement_cache"]
    emotions = (
        old["emotional_context"]["recent_emotions"] if "emotional_context" in old else [x["state"] for x in cache]
    )
    if not emotions and "emotional_context" not in old:
        assert new.emotion is None
        return
    assert [one.pad for one in new.emotion.recent_emotions] == [exactly(one["pad_values"]) for one in emotions]
    assert [one.timestamp for one in new.emotion.recent_emotions] == [one["timestamp"] for one in emotions]
    assert [one.confidence for one in new.emotion.recent_emotions] == [one["confidence"] for one in emotions]
    assert new.emotion.scale is qm.PADScale.BIPOLAR
    assert new.emotion.pad is None  # a measured point is not one that was encoded
    assert new.classical.get("emotional_context") == old.get("emotional_context")
    assert new.classical["measurement_cache"] == cache


@pytest.mark.parametrize("name", ["hdf5/h_n3_gzip.h5", "qms/q_n3_zlib.qms"])
def test_point_and_trajectory_of_a_store_are_converted_and_kept(name):
    with ReadableFile(DATA / name) as source:
        new = legacy.read(source).memory
    said = new.classical["emotional_context"]
    assert new.emotion.pad == qm.PAD(*exactly(list(new.classical["pad_values"])))
    assert new.emotion.trajectory.pad.tolist() == [
        list(exactly(row)) for row in np.asarray(said["trajectory"]).tolist()
    ]
    assert len(new.emotion.recent_emotions) == len(said["recent_emotions"]) == 2


def test_the_stability_is_that_on_the_bipolar_scale(tmp_path):
    recent = [{"pad_values": [0.5, 0.25, 0.5]}, {"pad_values": [0.5, 0.75, 0.5]}]
    context = {"recent_emotions": recent, "emotional_stability": 1 - 0.0625 / 3}
    new = qm.load(saved(tmp_path, [], emotional_context=context))
    assert new.emotion.stability == 1 - 0.25 / 3
    assert new.classical["emotional_context"]["emotional_stability"] == 1 - 0.0625 / 3


@pytest.mark.parametrize(
    "point", [[0.5, -0.25, 0.5], [1.5, 0.5, 0.5], [0.5, 0.5], "calm", None, [float("nan"), 0.5, 0.5], {"p": 1}]
)
def test_what_is_not_on_the_scale_is_kept_and_said(tmp_path, point):
    path = saved(tmp_path, [{"state": {"pad_values": point}}])
    new = qm.load(path)
    assert new.emotion is None
    assert repr(new.classical["measurement_cache"]) == repr([{"state": {"pad_values": point}}])
    assert any("not converted" in note for note in qm.info(path)["notes"])


def test_a_converted_memory_is_the_same_in_another_format(tmp_path):
    old = qm.load(DATA / "json_v2" / "v2_n3_mps.json")
    qm.save(old, tmp_path / "new.qms")
    new = qm.load(tmp_path / "new.qms")
    assert new.content_id == old.content_id
    assert new.emotion == old.emotion
