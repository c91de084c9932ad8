"""Versions of documents: told, not guessed; brought to another without loss; compared value for value."""

import copy
import datetime
import json
import math
import statistics
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, InvalidStateError, UnsafeError, UnsupportedVersionError
from quantum_memory.lifecycle.versions.report import ABSENT
from quantum_memory.lifecycle.versions.step import Loss, Step
from quantum_memory.lifecycle.versions.tree import copied, leaves, sha256_of

LEGACY = Path(__file__).parents[1] / "data" / "legacy"
OLD = sorted((LEGACY / "json_v1").glob("*.json"))
NEW = sorted((LEGACY / "json_v2").glob("*.json"))
WHEN = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
MINIMAL = {"interface_config": {"n_qubits": 27}, "measurement_cache": []}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
measured = st.fixed_dictionaries(
    {},
    optional={
        "pad_values": st.lists(st.floats(), min_size=2, max_size=4) | json_values,
        "confidence": st.floats() | json_values,
        "timestamp": st.text(max_size=9),
        "measurement_fidelity": st.floats(0, 1) | json_values,
        "of others": json_values,
    },
)
caches = st.lists(st.fixed_dictionaries({"state": measured | json_values}) | json_values, max_size=13)
documents = st.builds(
    lambda others, known: {**others, **known},
    st.dictionaries(st.text(max_size=8).filter(lambda key: key not in {"version", "metadata", "format"}), json_values),
    st.fixed_dictionaries(
        {"interface_config": json_values},
        optional={
            "measurement_cache": caches | json_values,
            "classical_network_state": json_values,
            "version": st.just("1.0"),
            "metadata": st.dictionaries(st.sampled_from(["owner", "a", "migration_info"]), json_values),
            "unrecognised": json_values,
            "fidelity_metrics": json_values,
        },
    ),
)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def manager():
    return qm.VersionManager(clock=lambda: WHEN)


def identical(one, other):
    return type(one) is type(other) and json.dumps(one) == json.dumps(other)


# Which version


def test_the_version_is_what_a_document_states(manager):
    assert manager.CURRENT_VERSION == "2.0"
    assert manager.get_version(MINIMAL) == "1.0"
    assert manager.get_version({**MINIMAL, "version": "1.0"}) == "1.0"
    assert manager.get_version({**MINIMAL, "version": "2.0"}) == "2.0"
    assert manager.get_version({**MINIMAL, "metadata": {"version": "2.0"}}) == "2.0"
    assert manager.get_version({**MINIMAL, "metadata": {"owner": "me"}}) == "1.0"
    assert manager.needs_migration(MINIMAL)
    assert not manager.needs_migration({**MINIMAL, "metadata": {"version": "2.0"}})
    assert manager.get_migration_path("1.0", "2.0") == ["1.0", "2.0"]
    assert manager.get_migration_path("2.0", "1.0") == ["2.0", "1.0"]
    assert manager.get_migration_path("2.0", "2.0") == ["2.0"]


@pytest.mark.parametrize("path", [*OLD, *NEW], ids=lambda path: path.name)
def test_files_of_the_first_implementation_state_theirs(manager, path):
    assert manager.get_version(read(path)) == ("1.0" if path in OLD else "2.0")


@pytest.mark.parametrize("version", ["2.1", "3.0", "10.0"])
@pytest.mark.parametrize("where", [lambda v: {"version": v}, lambda v: {"metadata": {"version": v}}])
def test_what_is_too_new_is_said_in_a_sentence(manager, version, where):
    document = MINIMAL | where(version)
    for ask in (manager.get_version, manager.needs_migration, manager.migrate):
        with pytest.raises(UnsupportedVersionError, match=f"needs a release that knows version {version}"):
            ask(document)
    with pytest.raises(UnsupportedVersionError, match=r"version 3\.1"):
        manager.migrate({"format": "quantum-memory", "version": "3.1"})


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"version": "1.0", "metadata": {"version": "2.0"}}, IntegrityError),
        ({"version": "2.0", "metadata": {"version": "1.0"}}, IntegrityError),
        (MINIMAL | {"version": 2.0}, IntegrityError),
        (MINIMAL | {"version": None}, IntegrityError),
        (MINIMAL | {"metadata": {"version": "two"}}, IntegrityError),
        (MINIMAL | {"version": "٢.0"}, IntegrityError),
        (MINIMAL | {"version": "1.7"}, UnsupportedVersionError),
        (MINIMAL | {"version": "0.9"}, UnsupportedVersionError),
        ({}, InvalidStateError),
        ({"measurement_cache": []}, InvalidStateError),
        ({"format": "quantum-memory"}, IntegrityError),
        ({"checkpoints": {}, "checkpoint_history": []}, InvalidStateError),
        ([], InvalidStateError),
    ],
)
def test_what_is_unknown_or_contradictory_is_not_guessed(manager, document, error):
    with pytest.raises(error):
        manager.migrate(document)


@pytest.mark.parametrize("version", ["3.0", "1.5", "", "two", "2"])
def test_a_version_that_is_not_there_cannot_be_reached(manager, version):
    with pytest.raises(UnsupportedVersionError):
        manager.get_migration_path("1.0", version)
    if version:
        with pytest.raises(UnsupportedVersionError):
            manager.migrate(MINIMAL, version)


def test_readers_of_files_refuse_what_contradicts_itself(tmp_path):
    for text in ('{"version":"1.0","metadata":{"version":"2.0"}', '{"version":"2.0","metadata":{"version":"3.0"}'):
        path = tmp_path / "state.json"
        path.write_text(text + ',"interface_config":{}}')
        with pytest.raises(IntegrityError, match="in its metadata of version"):
            qm.load(path)
    path.write_text('{"version":"2.0","metadata":{},"interface_config":{}}')
    assert qm.load(path).record["legacy"]["version"] == "2.0"


def test_a_memory_of_ours_needs_nothing(manager, tmp_path):
    qm.save(qm.MemoryState(classical={"a": 1}, metadata={"version": "1.0"}), tmp_path / "a.json")
    document = read(tmp_path / "a.json")
    assert manager.get_version(document) == "2.0"
    assert not manager.needs_migration(document)
    assert manager.migrate(document) == document
    assert manager.validate_migration(document, document)
    changed = document | {"content_id": "0"}
    assert [one.path for one in manager.validate_migration(document, changed).differences] == ["/content_id"]
    with pytest.raises(InvalidStateError, match="memory"):
        manager.migrate(document, "1.0")
    with pytest.raises(InvalidStateError, match="of one kind"):
        manager.validate_migration(MINIMAL, document)


# 1.0 to 2.0


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.name)
def test_an_upgrade_loses_nothing_and_makes_nothing_up(manager, path):
    old = read(path)
    kept = copy.deepcopy(old)
    new = manager.migrate(old)
    assert identical(old, kept)
    report = manager.validate_migration(old, new)
    assert report
    assert not report.losses
    for name in ("interface_config", "measurement_cache", "classical_network_state"):
        assert identical(new.get(name), old.get(name))
    others = {key: value for key, value in old.items() if key not in {*new, "version"}}
    assert new.get("unrecognised", {}) == others
    assert set(new["metadata"]) <= {"version", "n_measurements_cached", "device", "pad_scales", "migration_info"}
    assert new["metadata"]["n_measurements_cached"] == len(old["measurement_cache"])
    assert new["metadata"].get("device") == old["interface_config"].get("device")
    assert new["compression_metrics"] == new["tensor_memory_stats"] == {}


@pytest.mark.parametrize("path", NEW, ids=lambda path: path.name)
def test_figures_are_those_of_the_first_implementation(manager, path):
    theirs = read(path)
    both = ("interface_config", "measurement_cache", "classical_network_state")
    ours = manager.migrate({name: theirs[name] for name in both if name in theirs})
    count = len(theirs["measurement_cache"])
    if count == 0:  # it gave a mean of 0 and a least of 1 of nothing
        assert ours["fidelity_metrics"] == {"measurement_fidelities": []}
        assert ours["emotional_context"] == {"recent_emotions": []}
    else:
        assert ours["fidelity_metrics"] == theirs["fidelity_metrics"]
        if count == 1:  # it gave a stability of 0, which one emotion does not have
            del theirs["emotional_context"]["emotional_stability"]
        for emotion in ours["emotional_context"]["recent_emotions"]:
            del emotion["pad_bipolar"]  # which it did not have
        assert ours["emotional_context"] == theirs["emotional_context"]


def test_of_a_long_cache_the_last_ten_are_recent(manager):
    fidelities = [1 / (k + 3) for k in range(37)]
    states = [{"measurement_fidelity": one, "confidence": one / 2, "pad_values": [one, 0.5, 0.0]} for one in fidelities]
    new = manager.migrate({"interface_config": {}, "measurement_cache": [{"state": state} for state in states]})
    metrics, context = new["fidelity_metrics"], new["emotional_context"]
    assert metrics["measurement_fidelities"] == fidelities[-10:]
    assert metrics["average_fidelity"] == pytest.approx(math.fsum(fidelities) / 37, rel=1e-15)
    assert (metrics["min_fidelity"], metrics["max_fidelity"]) == (fidelities[-1], fidelities[0])
    assert [one["pad_values"][0] for one in context["recent_emotions"]] == fidelities[-10:]
    assert context["average_confidence"] == pytest.approx(math.fsum(fidelities[-10:]) / 20, rel=1e-15)
    spread = statistics.pvariance(fidelities[-10:]) / 3
    assert context["emotional_stability"] == pytest.approx(1 - spread, rel=1e-15)


def test_pad_keeps_its_numbers_and_the_scale_is_noted(manager):
    new = manager.migrate(read(LEGACY / "json_v1" / "v1_n3_mps.json"))
    assert new["metadata"]["pad_scales"] == {"pleasure": [-1, 1], "arousal": [0, 1], "dominance": [0, 1]}
    assert "pad_scales" not in manager.migrate(MINIMAL)["metadata"]  # there are none


def test_pad_is_converted_exactly_beside_its_numbers(manager):
    old = read(LEGACY / "json_v1" / "v1_n3_mps.json")
    recent = manager.migrate(old)["emotional_context"]["recent_emotions"]
    points = [item["state"]["pad_values"] for item in old["measurement_cache"]]
    assert [one["pad_values"] for one in recent] == points
    exact = [[p, float(2 * Fraction(a) - 1), float(2 * Fraction(d) - 1)] for p, a, d in points]
    assert [one["pad_bipolar"] for one in recent] == exact


@pytest.mark.parametrize("point", [[0.5, -0.25, 0.5], [0.5, 0.5], "calm", [True, 0.5, 0.5], [0.5, math.nan, 0.5]])
def test_what_is_not_on_the_old_scale_is_not_converted(manager, point):
    new = manager.migrate({"interface_config": {}, "measurement_cache": [{"state": {"pad_values": point}}]})
    (emotion,) = new["emotional_context"]["recent_emotions"]
    assert repr(emotion["pad_values"]) == repr(point)
    assert "pad_bipolar" not in emotion


def test_what_does_not_follow_stays_away(manager):
    states = [{"confidence": 0.5}, {"measurement_fidelity": float("nan"), "pad_values": [0, 0, 0]}]
    new = manager.migrate({"interface_config": {}, "measurement_cache": [{"state": one} for one in states]})
    assert new["fidelity_metrics"] == {}
    emotions = [{"confidence": 0.5}, {"pad_values": [0, 0, 0], "pad_bipolar": [0.0, -1.0, -1.0]}]
    assert new["emotional_context"] == {"recent_emotions": emotions}
    assert manager.migrate({"interface_config": None})["fidelity_metrics"] == {}


@given(documents)
def test_whatever_a_document_holds_comes_back(document):
    manager = qm.VersionManager()
    kept = json.dumps(document)
    new = manager.migrate(document)
    assert json.dumps(document) == kept
    assert manager.validate_migration(document, new)
    assert identical(new, manager.migrate(document, when=read_time(new)))
    old = manager.migrate(new, "1.0")
    lost = [one.path for one in manager.validate_migration(new, old).losses]
    # What has no place at the top of a document of 1.0 is what would be taken for its record, and is listed.
    assert all(path.startswith("/unrecognised/metadata") for path in lost)
    record = old["metadata"].pop("migration_info")
    assert record["previous"] == new["metadata"]["migration_info"]
    document.pop("version", None)
    if "metadata" not in document:
        assert old.pop("metadata") == {}
    elif "migration_info" in document["metadata"]:
        assert identical(record["previous"]["previous"], document["metadata"].pop("migration_info"))
    assert json.dumps(old, sort_keys=True) == json.dumps(document, sort_keys=True)


def read_time(document):
    return datetime.datetime.fromisoformat(document["metadata"]["migration_info"]["migration_date"])


# 2.0 to 1.0


@pytest.mark.parametrize("path", NEW, ids=lambda path: path.name)
def test_a_downgrade_says_what_it_loses(manager, path):
    new = read(path)
    old = manager.migrate(new, "1.0")
    assert manager.get_version(old) == "1.0"
    losses = old["metadata"]["migration_info"]["losses"]
    report = manager.validate_migration(new, old)
    assert not report
    assert not report.unexplained
    assert [one.to_json() for one in report.losses] == losses
    again = manager.migrate(old)
    there = dict(leaves(again))
    for at, value in leaves(new):
        lost = any(at == loss["path"] for loss in losses)
        empty = value in ({}, []) and type(value) in {dict, list}
        assert lost != (at in there and there[at] == value) or empty
    assert "/metadata/timestamp" in str(report)


# What is noted


def test_what_was_done_is_noted(manager):
    new = manager.migrate(MINIMAL)
    assert new["metadata"]["migration_info"] == {
        "migrated_from": "1.0",
        "migration_date": "2026-01-31T12:00:00+00:00",
        "migrated_by": f"quantum-memory {qm.__version__}",
        "migrated_to": "2.0",
        "path": ["1.0", "2.0"],
        "source_sha256": sha256_of(MINIMAL),
    }
    old = manager.migrate(new, "1.0", when=WHEN + datetime.timedelta(days=1))
    assert old["metadata"]["migration_info"]["previous"] == new["metadata"]["migration_info"]
    assert manager.migrate(new) == new  # nothing was done
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert identical(manager.migrate(MINIMAL, when=WHEN.astimezone(zone)), new)
    with pytest.raises(InvalidStateError, match="time zone"):
        manager.migrate(MINIMAL, when=datetime.datetime(2026, 1, 31))


def test_the_digest_is_that_of_the_content(manager):
    text = json.dumps({"b": [1.5, float("nan")], "a": "ü"}, separators=(",", ":"))
    assert text == '{"b":[1.5,NaN],"a":"\\u00fc"}'
    assert sha256_of(json.loads(text)) == sha256_of({"a": "ü", "b": [1.5, float("nan")]})
    assert sha256_of({"a": 1}) != sha256_of({"a": 1.0}) != sha256_of({"a": True})


def test_a_result_shares_nothing_with_its_source(manager):
    old = read(LEGACY / "json_v1" / "v1_n3_mps.json")
    new, kept = manager.migrate(old), json.dumps(old)
    new["interface_config"]["noise_model"].clear()
    new["emotional_context"]["recent_emotions"][0]["pad_values"].clear()
    assert json.dumps(old) == kept
    assert all(item["state"]["pad_values"] for item in new["measurement_cache"])


def test_what_json_does_not_give_is_refused(manager):
    for value in ((1, 2), b"x", {1: 2}, {1, 2}, 1j):
        with pytest.raises(InvalidStateError):
            manager.migrate(MINIMAL | {"notes": value})
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UnsafeError):
        manager.migrate(MINIMAL | {"notes": deep})


# What differs


def changes(value):
    """Return other values that something must not be taken for."""
    if isinstance(value, bool):
        return [not value, int(value), None]
    if isinstance(value, int):
        return [value + 1, float(value), str(value)]
    if isinstance(value, float):
        return [math.nextafter(value, 2), -value, None] if value else [-value, 0, 5e-324]
    if isinstance(value, str):
        return [value + " ", "", None]
    return [0, False, ""] if value is None else [None, 0]


def places(node):
    """Yield every container and a key of it."""
    for key in node if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from places(node[key])


@pytest.mark.parametrize("target", ["2.0", "1.0"])
def test_every_change_is_found(manager, target):
    """Each value in turn becomes another, goes away, or gets a neighbour."""
    source = read(LEGACY / "json_v1" / "v1_n3_mps.json")
    source["classical_network_state"] = {"0.bias": [0.5, 0.0, [True, None]]}
    source["measurement_cache"] = source["measurement_cache"][:2]
    source |= {"notes": {"keep": ["me", {}]}, "a/b~c": 2**70}
    original = source if target == "2.0" else manager.migrate(source)
    migrated = manager.migrate(original, target)
    signed = {("migration_date",), ("migrated_by",)}
    count = len(list(places(migrated)))
    assert manager.validate_migration(original, migrated)
    for index in range(count):
        changed = copied(migrated)
        node, key = list(places(changed))[index]
        if (key,) in signed and node is changed["metadata"]["migration_info"]:
            continue
        value = node[key]
        if not isinstance(value, (dict, list)):
            for other in changes(value):
                node[key] = other
                report = manager.validate_migration(original, changed)
                assert not report
                assert [one.after for one in report.unexplained] == [other]
            node[key] = value
        del node[key]
        assert manager.validate_migration(original, changed).unexplained
        if isinstance(node, dict):
            node[key], node["more"] = value, 0
            report = manager.validate_migration(original, changed)
            assert "/more" in report.unexplained[-1].path
            assert report.unexplained[-1].before is report.unexplained[-1].expected is ABSENT
            assert str(report).count("\n") == len(report.unexplained)


def test_a_report_says_what_was_there(manager):
    new = manager.migrate(MINIMAL)
    new["interface_config"]["n_qubits"] = 5
    (one,) = manager.validate_migration(MINIMAL, new).unexplained
    assert (one.path, one.before, one.after, one.expected) == ("/interface_config/n_qubits", 27, 5, 27)
    assert "/interface_config/n_qubits: 27 -> 5" in str(manager.validate_migration(MINIMAL, new))
    explained = manager.validate_migration(MINIMAL, manager.migrate(MINIMAL)).differences
    assert {one.path for one in explained if "migration_info" not in one.path} == {
        "/metadata/version", "/metadata/n_measurements_cached", "/compression_metrics", "/tensor_memory_stats",
        "/fidelity_metrics/measurement_fidelities", "/emotional_context/recent_emotions",
    }  # fmt: skip
    assert all(one.explained and "1.0 -> 2.0" in one.why for one in explained)


def test_another_source_is_found(manager):
    new = manager.migrate(MINIMAL)
    other = copied(MINIMAL) | {"notes": 1}
    found = {one.path for one in manager.validate_migration(other, new).unexplained}
    assert found == {"/unrecognised/notes", "/metadata/migration_info/source_sha256"}


def test_what_the_first_implementation_made_up_is_listed(manager):
    """Its own migration put there times, zeros and checksums that 1.0 does not have; nothing of 1.0 was lost."""
    old = read(LEGACY / "json_v1" / "v1_n3_mps.json")
    new = manager.migrate(old)
    new["metadata"] |= {"timestamp": "2026-11-22T11:26:48", "quantum_state_checksum": None}
    new["metadata"]["migration_info"] = {"migrated_from": "1.0", "migration_date": "2026-11-22T11:26:48"}
    new["emotional_context"]["emotional_stability"] = 0.0
    report = manager.validate_migration(old, new)
    assert not report
    found = {one.path for one in report.unexplained}
    assert {
        "/metadata/timestamp",
        "/metadata/quantum_state_checksum",
        "/emotional_context/emotional_stability",
    } <= found
    assert all(one.before is ABSENT for one in report.unexplained)


# Steps of others


def renamed(document):
    return {**document, "metadata": {**document["metadata"], "version": "3.0"}}


def test_others_can_register_steps(manager):
    manager.register(Step("2.0", "3.0", renamed))
    assert manager.get_migration_path("1.0", "3.0") == ["1.0", "2.0", "3.0"]
    new = manager.migrate(MINIMAL, "3.0")
    assert manager.get_version(new) == "3.0"
    assert not manager.needs_migration(new)
    assert new["metadata"]["migration_info"]["path"] == ["1.0", "2.0", "3.0"]
    assert manager.validate_migration(MINIMAL, new)
    with pytest.raises(UnsupportedVersionError):
        qm.VersionManager().get_version(new)  # each manager has its own


def test_a_way_without_loss_is_taken_even_where_it_is_longer(manager):
    def lossy(_):
        return [Loss("/a", "it has no place")]

    manager.register(Step("1.0", "4.0", renamed, lossy))
    assert manager.get_migration_path("1.0", "4.0") == ["1.0", "4.0"]
    manager.register(Step("2.0", "3.0", renamed))
    manager.register(Step("3.0", "4.0", renamed))
    assert manager.get_migration_path("1.0", "4.0") == ["1.0", "2.0", "3.0", "4.0"]
    manager.register(Step("1.0", "3.0", renamed))
    assert manager.get_migration_path("1.0", "4.0") == ["1.0", "3.0", "4.0"]
    assert manager.get_migration_path("4.0", "4.0") == ["4.0"]
    with pytest.raises(UnsupportedVersionError, match="no steps lead"):
        manager.get_migration_path("4.0", "1.0")


@pytest.mark.parametrize(
    "step",
    [Step("1.0", "2.0", renamed), Step("3.0", "3.0", renamed), Step("2.0", "three", renamed), Step("", "2.0", renamed)],
)
def test_steps_that_make_no_sense_are_refused(manager, step):
    with pytest.raises(InvalidStateError):
        manager.register(step)


@pytest.mark.parametrize(
    "wrong", [lambda document: document, lambda _: {"version": "3.0", "metadata": 1}, lambda _: None]
)
def test_a_step_that_does_not_do_what_it_says_is_found(manager, wrong):
    manager.register(Step("2.0", "3.0", wrong))
    with pytest.raises(InvalidStateError):
        manager.migrate(MINIMAL, "3.0")


def test_a_step_that_changes_its_input_changes_nothing_of_the_caller(manager):
    def careless(document):
        document["interface_config"].clear()
        document["metadata"]["version"] = "3.0"
        return document

    manager.register(Step("2.0", "3.0", careless))
    document = manager.migrate(MINIMAL)
    kept = json.dumps(document)
    manager.migrate(document, "3.0")
    assert json.dumps(document) == kept


def test_metadata_that_are_no_object_are_kept_and_listed_when_they_cannot_be(manager):
    new = manager.migrate(MINIMAL | {"metadata": "mine"})
    assert new["unrecognised"] == {"metadata": "mine"}
    record = manager.migrate(new, "1.0")["metadata"]["migration_info"]
    assert [one["path"] for one in record["losses"]] == ["/unrecognised/metadata"]
