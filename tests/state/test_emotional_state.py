"""PAD points, scales, trajectories and contexts: exact, refusing what is not on its scale, and losing nothing."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.state.emotional_state import ANCHORS, PAD, Emotion, EmotionalContext, PADScale, Trajectory

OLD = {
    "recent_emotions": [
        {"pad_values": [0.5, 0.25, 0.75], "timestamp": "2025-11-02T10:00:00", "confidence": 0.9},
        [0.1, 0.2, 0.3],
        {"pad_values": [0, 1, 0], "source": "text", "timestamp": 1_700_000_000.5},
        {"pad_values": [0.0, 0.5, 0.5], "confidence": None},
    ],
    "average_confidence": 0.85,
    "emotional_stability": 0.7,
    "trajectory": [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]],
    "mood": {"label": "calm", "tags": ["a", 1, None]},
}


def in_scale(scale):
    return st.tuples(*(st.floats(*ends) for ends in scale.bounds)).map(np.array)


# --- scales and points


@pytest.mark.parametrize("scale", PADScale)
def test_the_ends_and_the_middle_of_a_scale_are_exact(scale):
    low, high = np.transpose(scale.bounds)
    assert scale.to_bipolar([low, (low + high) / 2, high]).tolist() == [[-1] * 3, [0] * 3, [1] * 3]
    assert scale.from_bipolar([[-1] * 3, [0] * 3, [1] * 3]).tolist() == [
        low.tolist(), ((low + high) / 2).tolist(), high.tolist()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "bipolar"),
    [
        (PADScale.BIPOLAR, [lambda x: x] * 3),
        (PADScale.UNIT, [lambda x: 2 * x - 1] * 3),
        (PADScale.LIKERT9, [lambda x: (x - 5) / 4] * 3),
        (PADScale.LIKERT5, [lambda x: (x - 3) / 2] * 3),
        (PADScale.MIXED, [lambda x: x, lambda x: 2 * x - 1, lambda x: 2 * x - 1]),
    ],
)
@given(data=st.data())
def test_conversion_is_the_affine_map_to_the_last_digit_but_one(scale, bipolar, data):
    values = data.draw(in_scale(scale))
    exact = [float(convert(Fraction(float(value)))) for convert, value in zip(bipolar, values, strict=True)]
    np.testing.assert_allclose(scale.to_bipolar(values), exact, rtol=0, atol=2**-53)
    np.testing.assert_allclose(
        scale.from_bipolar(scale.to_bipolar(values)), values, rtol=0, atol=4e-16 * scale.bounds[0][1]
    )


def test_conversion_keeps_the_dtype_and_the_shape():
    values = np.full((4, 2, 3), 5, dtype=np.float32)
    assert PADScale.LIKERT9.to_bipolar(values).dtype == np.float32
    assert PADScale.LIKERT9.to_bipolar(values).shape == (4, 2, 3)
    assert PADScale.LIKERT5.to_bipolar([1, 3, 5]).dtype == np.float64


@pytest.mark.parametrize(
    ("scale", "values", "message"),
    [
        (PADScale.BIPOLAR, [0, 0, 1.0000001], r"dominance 1\.0000001 is outside the bipolar scale \[-1, 1\]"),
        (PADScale.UNIT, [0.5, -0.3, 0.5], r"arousal -0\.3 is outside the unit scale \[0, 1\]"),
        (PADScale.LIKERT9, [0.5, 5, 5], r"pleasure 0\.5 is outside the likert9 scale \[1, 9\]"),
        (PADScale.LIKERT5, [[3, 3, 3], [3, float("nan"), 3]], "arousal nan is outside"),
        (PADScale.MIXED, [-0.5, -0.3, 0.5], r"arousal -0\.3 is outside the mixed scale \[0, 1\]"),
        (PADScale.BIPOLAR, [0, 0], "come in threes"),
        (PADScale.BIPOLAR, 0.0, "come in threes"),
        (PADScale.BIPOLAR, ["0", "0", "0"], "real numbers"),
        (PADScale.BIPOLAR, [0, 1j, 0], "real numbers"),
    ],
)
def test_what_is_not_on_the_scale_is_refused_and_never_clipped(scale, values, message):
    with pytest.raises(InvalidStateError, match=message):
        scale.to_bipolar(values)


def test_a_point_behaves_as_three_numbers():
    point = PAD(0.5, -1, 0)
    pleasure, arousal, dominance = point
    assert (pleasure, arousal, dominance) == (0.5, -1.0, 0.0) == tuple(point)
    assert (len(point), point[1], point[-1]) == (3, -1.0, 0.0)
    assert np.asarray(point).tolist() == [0.5, -1.0, 0.0]
    assert np.asarray(point, dtype=np.float32).dtype == np.float32
    assert type(point.arousal) is float
    assert point == PAD.of(np.array([0.5, -1, 0])) == PAD.of(point)
    assert PAD(1, 1, 1).distance(PAD(-1, -1, -1)) == pytest.approx(2 * 3**0.5)
    assert hash(point) == hash(PAD(0.5, -1.0, 0.0))


def test_a_point_may_be_given_on_another_scale():
    assert PAD.of([9, 1, 5], PADScale.LIKERT9) == PAD(1, -1, 0)
    assert PAD(1, -1, 0).to_scale(PADScale.UNIT) == (1.0, 0.0, 0.5)
    with pytest.raises(InvalidStateError, match="arousal"):
        PAD(0, 2, 0)
    with pytest.raises(InvalidStateError, match=r"shape \(3,\)"):
        PAD.of([[0, 0, 0]])


def test_the_anchors_are_those_of_the_literature_and_cannot_be_changed():
    assert set(ANCHORS) == {"joy", "anger", "fear", "sadness", "disgust", "surprise"}
    assert tuple(ANCHORS["joy"]) == (0.76, 0.48, 0.35)
    assert tuple(ANCHORS["sadness"]) == (-0.63, -0.27, -0.33)  # arousal and dominance below 0: not a [0, 1] scale
    with pytest.raises(TypeError):
        ANCHORS["love"] = PAD(0, 0, 0)


# --- trajectories


def test_a_trajectory_keeps_its_arrays():
    pad = np.zeros((3, 3), dtype=np.float32)
    time = np.array([1, 2, 2], dtype=np.int64)
    path = Trajectory(pad, time, np.ones((3, 3)))
    assert path.pad is pad
    assert path.time.dtype == np.int64
    assert (len(path), len(Trajectory([]))) == (3, 0)
    assert Trajectory([[0, 0, 1]]).pad.dtype == np.float64


def test_stability_is_one_minus_the_mean_variance():
    assert Trajectory([[0.3, 0.1, -0.2]] * 5).stability() == 1.0
    assert Trajectory([[1, 1, 1], [-1, -1, -1]]).stability() == 0.0
    values = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    assert Trajectory(values).stability() == pytest.approx(1 - values.var(axis=0).mean())
    with pytest.raises(InvalidStateError, match="empty"):
        Trajectory([]).stability()


def test_trajectories_are_equal_bit_by_bit():
    zeros = np.zeros((2, 3))
    assert Trajectory(zeros) == Trajectory(zeros.copy())
    assert Trajectory(zeros) != Trajectory(-zeros)
    assert Trajectory(zeros) != Trajectory(zeros.astype(np.float32))
    assert Trajectory(zeros) != Trajectory(zeros, np.array([0, 1]))
    assert Trajectory(zeros, np.array([0, 1])) != Trajectory(zeros, np.array([0.0, 1.0]))
    assert Trajectory(zeros) != zeros.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 4)),), r"\(T, 3\)"),
        ((np.zeros((2, 3), dtype=int),), "dtype int64"),
        ((np.zeros((2, 3), dtype=np.float16),), "dtype float16"),
        ((np.full((2, 3), np.nan),), "not finite"),
        (([[1, 2, 3], [1, 2]],), "three numbers"),
        ((np.zeros((2, 3)), np.array([1])), "shape"),
        ((np.zeros((2, 3)), np.array([1, 2], dtype=np.int32)), "int32"),
        ((np.zeros((2, 3)), np.array([2, 1])), "backwards"),
        ((np.zeros((2, 3)), np.array([0.0, np.nan])), "backwards or is not a number"),
        ((np.zeros((2, 3)), None, np.zeros((1, 3))), "standard errors"),
        ((np.zeros((2, 3)), None, np.full((2, 3), -0.1)), "standard errors"),
    ],
)
def test_malformed_trajectories_are_refused(arguments, message):
    with pytest.raises(InvalidStateError, match=message):
        Trajectory(*arguments)


# --- contexts


def test_the_free_form_comes_back_as_it_went_in():
    context = EmotionalContext.from_dict(OLD)
    assert context.to_dict() == OLD
    assert json.loads(json.dumps(context.to_dict())) == OLD
    assert list(context.to_dict()) == list(OLD)
    assert (context.confidence, context.stability, context.scale) == (0.85, 0.7, PADScale.BIPOLAR)
    assert context.extra == {"mood": {"label": "calm", "tags": ["a", 1, None]}}
    first, plain, odd, _ = context.recent_emotions
    assert (first.pad, first.timestamp, first.confidence) == ((0.5, 0.25, 0.75), "2025-11-02T10:00:00", 0.9)
    assert plain == Emotion((0.1, 0.2, 0.3))
    assert odd.extra == {"source": "text", "timestamp": 1_700_000_000.5}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recent_emotions": []},
        {"stability": 0.5},
        {"stability": 0.5, "emotional_stability": 0.25},
        {"average_confidence": None, "trajectory": None},
        {"trajectory": []},
        {"scale": "bipolar"},
        {"scale": "likert9", "pad": [0.5, 0, 0], "recent_emotions": [[9, 1, 5]]},
        {"trajectory": [[0, 0, 0]], "trajectory_time": [12], "trajectory_standard_error": [[0.1, 0.1, 0.1]]},
    ],
)
def test_keys_that_came_in_go_out_and_no_others(values):
    assert EmotionalContext.from_dict(values).to_dict() == values


def test_values_stay_on_the_scale_that_they_were_given_on():
    context = EmotionalContext.from_dict(
        {"recent_emotions": [[7, 2, 9]], "trajectory": [[1, 5, 9]]}, scale=PADScale.LIKERT9
    )
    assert context.recent_emotions[0].pad == (7.0, 2.0, 9.0)
    assert context.trajectory.pad.tolist() == [[1.0, 5.0, 9.0]]
    assert PAD.of(context.recent_emotions[0].pad, context.scale) == PAD(0.5, -0.75, 1)
    assert EmotionalContext.from_dict(context.to_dict()) == EmotionalContext.from_dict(
        context.to_dict(), scale=context.scale
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recent_emotions": [[0, 1.5, 0]]}, r"arousal 1\.5"),
        ({"trajectory": [[0, 0, -2]]}, r"dominance -2"),
        ({"recent_emotions": [{"timestamp": "now"}]}, "without pad_values"),
        ({"recent_emotions": [[1, 2]]}, "three finite numbers"),
        ({"recent_emotions": [[0, float("nan"), 0]]}, "three finite numbers"),
        ({"average_confidence": "high"}, "not a number"),
        ({"scale": "percent"}, "no PAD scale 'percent'"),
        ({"trajectory_time": [1]}, "not there"),
        ({"standard_error": [0.1]}, "standard_error"),
    ],
)
def test_a_context_that_is_not_what_it_says_is_refused(values, message):
    with pytest.raises(InvalidStateError, match=message):
        EmotionalContext.from_dict(values)


def test_a_declared_scale_is_not_overruled():
    with pytest.raises(InvalidStateError, match="its scale is unit"):
        EmotionalContext.from_dict({"scale": "unit"}, scale=PADScale.LIKERT5)


def full_context():
    return EmotionalContext(
        pad=PAD(0.1, -0.0, 0.3),
        scale=PADScale.UNIT,
        standard_error=(0.01, 0.02, 0.03),
        recent_emotions=(Emotion((0.1, 0.2, 0.3), "2026-01-31T12:00:00Z", 0.5, {"x": np.arange(3)}),),
        stability=float("nan"),
        confidence=0.25,
        trajectory=Trajectory(np.full((2, 3), 0.5, dtype=np.float32), np.array([0.5, 1.5]), np.zeros((2, 3))),
        extra={"embedding": np.arange(4.0), "deep": [{"a": (1, 2)}]},
    )


def test_contexts_are_equal_bit_by_bit_and_survive_their_trees():
    context = full_context()
    assert context == full_context()
    assert EmotionalContext.from_tree(context.to_tree()) == context
    old = EmotionalContext.from_dict(OLD)
    again = EmotionalContext.from_tree(old.to_tree())
    assert again == old
    assert again.to_dict() == OLD


@pytest.mark.parametrize(
    "change",
    [
        {"pad": PAD(0.1, 0.0, 0.3)},
        {"pad": None},
        {"scale": PADScale.BIPOLAR},
        {"standard_error": None},
        {"recent_emotions": ()},
        {"stability": 0.5},
        {"trajectory": None},
        {"extra": {"embedding": np.arange(4.0), "deep": [{"a": [1, 2]}]}},
    ],
)
def test_a_single_difference_is_seen(change):
    context = full_context()
    changed = EmotionalContext(**({name: getattr(context, name) for name in context.__dataclass_fields__} | change))
    assert changed != context


@pytest.mark.parametrize(
    "change", [{"scale": "x"}, {"pad": (2, 0, 0)}, {"trajectory": {}}, {"more": 1}, {"recent_emotions": 3}]
)
def test_a_damaged_tree_is_an_integrity_error(change):
    with pytest.raises(IntegrityError):
        EmotionalContext.from_tree(full_context().to_tree() | change)
    with pytest.raises(IntegrityError):
        EmotionalContext.from_tree({})


def test_a_context_is_brought_to_another_scale():
    context = EmotionalContext(
        pad=PAD(0.5, 0.5, 0.5),
        scale=PADScale.MIXED,
        recent_emotions=(Emotion((-0.5, 0.25, 1.0), "then", 0.5, {"why": "rain"}), Emotion((0.5, 0.75, 0.0))),
        stability=0.5,
        confidence=0.25,
        trajectory=Trajectory(np.float32([[0, 0.5, 1]]), np.array([7]), np.float32([[0.25, 0.25, 0.25]])),
        extra={"mood": "calm"},
    )
    bipolar = context.to_scale(PADScale.BIPOLAR)
    assert [one.pad for one in bipolar.recent_emotions] == [(-0.5, -0.5, 1), (0.5, 0.5, -1)]
    assert bipolar.recent_emotions[0].extra == {"why": "rain"}
    assert bipolar.trajectory == Trajectory(np.float32([[0, 0, 1]]), np.array([7]), np.float32([[0.25, 0.5, 0.5]]))
    assert bipolar.stability == 1 - (0.25 + 0.25 + 1) / 3
    assert (bipolar.pad, bipolar.confidence, bipolar.extra) == (context.pad, 0.25, context.extra)
    back = bipolar.to_scale(PADScale.MIXED)
    assert (back.recent_emotions, back.trajectory) == (context.recent_emotions, context.trajectory)
    assert context.to_scale(PADScale.MIXED) is context


def test_the_stability_of_emotions_that_are_not_there_cannot_be_converted():
    assert EmotionalContext(scale=PADScale.MIXED, stability=0.5).to_scale(PADScale.BIPOLAR).stability is None
