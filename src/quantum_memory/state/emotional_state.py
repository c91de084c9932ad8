"""Emotion around a state, as plain values: the point, its history, its path, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.state.document import content_id, flatten, identify
from quantum_memory.state.pad import ANCHORS, AXES, PAD, PADScale

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.floating[Any]]

__all__ = ["ANCHORS", "AXES", "PAD", "Emotion", "EmotionalContext", "PADScale", "Trajectory"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """PAD values in the order of time. The arrays are wrapped, not copied.

    Parameters
    ----------
    pad
        float32 or float64, shape (T, 3), on the scale that the holder declares. Anything but an array becomes float64.
    time
        int64 nanoseconds or float64 seconds, shape (T,), never decreasing; None when it is not known.
    standard_error
        float32 or float64, shape (T, 3), not negative; None when it is not known.

    Raises
    ------
    InvalidStateError
        If a shape, a dtype or a value is not as above; nothing is cast.
    """

    pad: FloatArray
    time: NDArray[np.int64] | NDArray[np.float64] | None = None
    standard_error: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pad", _rows(self.pad))
        if self.pad.ndim != 2 or self.pad.shape[1] != len(AXES):
            raise InvalidStateError(
                f"a trajectory has shape (T, 3), not {self.pad.shape}", next_step="one row per instant"
            )
        _check_floats(self.pad, "trajectory")
        if self.time is not None:
            object.__setattr__(self, "time", np.asarray(self.time))
            self._check_time(self.time)
        if self.standard_error is not None:
            object.__setattr__(self, "standard_error", _rows(self.standard_error))
            _check_floats(self.standard_error, "standard error")
            if self.standard_error.shape != self.pad.shape or (self.standard_error < 0).any():
                raise InvalidStateError(
                    f"standard errors are not negative and have the shape of the values, {self.pad.shape}",
                    next_step="one row per instant",
                )

    def _check_time(self, time: NDArray[Any]) -> None:
        if time.shape != (len(self),) or time.dtype.kind + str(time.dtype.itemsize) not in {"i8", "f8"}:
            raise InvalidStateError(
                f"time has shape {time.shape} and dtype {time.dtype}; ({len(self)},) of int64 or float64 is wanted",
                next_step="give int64 nanoseconds or float64 seconds, one per instant",
            )
        if not (time[1:] >= time[:-1]).all() or not np.isfinite(time).all():
            raise InvalidStateError("time goes backwards or is not a number", next_step="sort the instants by time")

    def __len__(self) -> int:
        return len(self.pad)

    def stability(self) -> float:
        """Return 1 minus the mean over the axes of the population variance: 1 at rest, at least 0 on [-1, 1].

        Raises
        ------
        InvalidStateError
            If the trajectory is empty.
        """
        if len(self) == 0:
            raise InvalidStateError("an empty trajectory has no stability", next_step="add at least one instant")
        return 1.0 - float(np.var(self.pad, axis=0, dtype=np.float64).mean())

    def to_tree(self) -> dict[str, Any]:
        """Return the fields that are set, as a dictionary of arrays."""
        return _set_fields(self)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Emotion:
    """One emotion as it was reported.

    Parameters
    ----------
    pad
        The values as given, on the scale that the context declares; `PAD.of(emotion.pad, context.scale)` converts.
    timestamp
        ISO 8601, UTC; kept as given.
    confidence
        How sure its source was.
    extra
        Whatever else was said about it.
    keys
        The keys that it was read from, so that `to_dict` writes the same; empty for a plain triple.
    """

    pad: tuple[float, float, float]
    timestamp: str | None = None
    confidence: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pad", _triple(self.pad, "the PAD values of an emotion"))
        object.__setattr__(self, "keys", tuple(dict.fromkeys(self.keys)))
        _check_number(self.confidence, "confidence")
        if self.timestamp is not None and not isinstance(self.timestamp, str):
            raise InvalidStateError("a timestamp is text", next_step="give ISO 8601 text, such as 2026-01-31T12:00:00Z")

    @classmethod
    def from_dict(cls, item: Mapping[str, Any] | ArrayLike) -> Self:
        """Read `{pad_values, timestamp, confidence, ...}` or a plain [p, a, d]."""
        if not isinstance(item, Mapping):
            return cls(item)  # type: ignore[arg-type]
        if "pad_values" not in item:
            raise InvalidStateError("an emotion without pad_values", next_step="give {'pad_values': [p, a, d], ...}")
        extra = {key: value for key, value in item.items() if key not in {"pad_values", "timestamp", "confidence"}}
        timestamp = item.get("timestamp")
        if timestamp is not None and not isinstance(timestamp, str):
            timestamp, extra["timestamp"] = None, timestamp  # seconds or a datetime: kept as it is
        return cls(item["pad_values"], timestamp, item.get("confidence"), extra, tuple(item))

    def to_dict(self) -> dict[str, Any] | list[float]:
        """Return what `from_dict` read: a triple, or a dictionary with the same keys."""
        known = {"pad_values": list(self.pad), "timestamp": self.timestamp, "confidence": self.confidence}
        written = _with_keys(known, self.extra, self.keys)
        return list(self.pad) if not self.keys and set(written) == {"pad_values"} else written

    def to_tree(self) -> dict[str, Any]:
        """Return the fields that are set, as a dictionary."""
        return _set_fields(self)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class EmotionalContext:
    """What is known of the emotion that a state encodes. Values stay as they were given; equality is bit by bit.

    Parameters
    ----------
    pad
        The point, always bipolar; None when there is none.
    scale
        The scale on which `recent_emotions` and `trajectory` are, and on which `pad` was given. Nothing is converted.
    standard_error
        Of `pad`, per axis, on the bipolar scale.
    recent_emotions
        The history, oldest first.
    stability, confidence
        As the caller measured them.
    trajectory
        The path in PAD space.
    extra
        Whatever else the caller keeps.
    keys
        The keys that it was read from, so that `to_dict` writes the same.

    Raises
    ------
    InvalidStateError
        If a value is not on `scale`, or of the wrong shape or type.
    """

    pad: PAD | None = None
    scale: PADScale = PADScale.BIPOLAR
    standard_error: tuple[float, float, float] | None = None
    recent_emotions: tuple[Emotion, ...] = ()
    stability: float | None = None
    confidence: float | None = None
    trajectory: Trajectory | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "recent_emotions", tuple(self.recent_emotions))
        object.__setattr__(self, "extra", dict(self.extra))
        object.__setattr__(self, "keys", tuple(dict.fromkeys(self.keys)))
        for emotion in self.recent_emotions:
            self.scale.check(emotion.pad)
        if self.trajectory is not None:
            self.scale.check(self.trajectory.pad)
        if self.standard_error is not None:
            object.__setattr__(self, "standard_error", _triple(self.standard_error, "standard_error"))
        _check_number(self.stability, "stability")
        _check_number(self.confidence, "confidence")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, scale: PADScale | None = None) -> Self:
        """Read a free-form dictionary; keys that are not known go to `extra`, and nothing is dropped or converted.

        Known are `recent_emotions`, `average_confidence`, `emotional_stability` or `stability`, `trajectory` ([p, a, d]
        per instant) with `trajectory_time` and `trajectory_standard_error`, `pad` and `standard_error` (both bipolar),
        and `scale` (the value of a `PADScale`).

        Parameters
        ----------
        values
            The dictionary.
        scale
            The scale of the values, if the dictionary does not say it; bipolar otherwise.
        """
        rest = dict(values)
        stability = rest.pop("emotional_stability") if "emotional_stability" in rest else rest.pop("stability", None)
        declared = rest.pop("scale", None)
        try:
            said = None if declared is None else PADScale(declared)
        except ValueError as error:
            raise InvalidStateError(
                f"there is no PAD scale {declared!r}", next_step=f"use one of {[known.value for known in PADScale]}"
            ) from error
        if said is not None and scale not in {None, said}:
            raise InvalidStateError(f"the dictionary says that its scale is {said.value}", next_step="leave scale out")
        pad, rows = rest.pop("pad", None), rest.pop("trajectory", None)
        time, errors = rest.pop("trajectory_time", None), rest.pop("trajectory_standard_error", None)
        if rows is None and not (time is None and errors is None):
            raise InvalidStateError("times or errors of a trajectory that is not there", next_step="add 'trajectory'")
        return cls(
            pad=None if pad is None else PAD.of(pad),
            scale=said or scale or PADScale.BIPOLAR,
            standard_error=rest.pop("standard_error", None),
            recent_emotions=tuple(Emotion.from_dict(item) for item in rest.pop("recent_emotions", None) or ()),
            stability=stability,
            confidence=rest.pop("average_confidence", None),
            trajectory=None if rows is None else Trajectory(rows, time, errors),
            extra=rest,
            keys=tuple(values),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the free-form dictionary: the keys that `from_dict` read, and those of fields set since."""
        path = self.trajectory
        recent = [emotion.to_dict() for emotion in self.recent_emotions]
        short = "stability" in self.keys and "emotional_stability" not in self.keys
        stability_key = "stability" if short else "emotional_stability"
        known = {
            "pad": None if self.pad is None else list(self.pad),
            "scale": None if self.scale is PADScale.BIPOLAR and "scale" not in self.keys else self.scale.value,
            "standard_error": None if self.standard_error is None else list(self.standard_error),
            "recent_emotions": recent if recent or "recent_emotions" in self.keys else None,
            stability_key: self.stability,
            "average_confidence": self.confidence,
            "trajectory": None if path is None else path.pad.tolist(),
            "trajectory_time": None if path is None or path.time is None else path.time.tolist(),
            "trajectory_standard_error": (
                None if path is None or path.standard_error is None else path.standard_error.tolist()
            ),
        }
        return _with_keys(known, self.extra, self.keys)

    def to_scale(self, scale: PADScale) -> Self:
        """Return the context with its emotions and its trajectory on another scale.

        On the bipolar scale each number has been rounded once. `stability` is computed again from the emotions where
        there was one and two or more emotions are there; otherwise it is None, for the number alone cannot be
        converted.

        Parameters
        ----------
        scale
            The other scale.
        """
        if scale is self.scale:
            return self

        def convert(values: FloatArray) -> FloatArray:
            return scale.from_bipolar(self.scale.to_bipolar(values))

        rows = convert(np.array([one.pad for one in self.recent_emotions]).reshape(-1, len(AXES)))
        recent = tuple(replace(one, pad=row) for one, row in zip(self.recent_emotions, rows.tolist(), strict=True))
        path = self.trajectory
        if path is not None:
            errors = path.standard_error
            if errors is not None:
                old, new = (np.diff(one.bounds).T for one in (self.scale, scale))
                errors = errors * (new / old).astype(errors.dtype)
            path = Trajectory(convert(path.pad), path.time, errors)
        known = self.stability is not None and len(rows) > 1
        return replace(
            self,
            scale=scale,
            recent_emotions=recent,
            trajectory=path,
            stability=Trajectory(rows).stability() if known else None,
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the fields that are set, as a tree of dictionaries, tuples, arrays and plain values: as stored."""
        tree = {**_set_fields(self), "scale": self.scale.value}
        if self.pad is not None:
            tree["pad"] = tuple(self.pad)
        if self.recent_emotions:
            tree["recent_emotions"] = [emotion.to_tree() for emotion in self.recent_emotions]
        if self.trajectory is not None:
            tree["trajectory"] = self.trajectory.to_tree()
        return tree

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Return the context that `to_tree` gave.

        Raises
        ------
        IntegrityError
            If `to_tree` would not have given this.
        """
        try:
            fields = dict(tree)
            pad, trajectory = fields.pop("pad", None), fields.pop("trajectory", None)
            return cls(
                pad=None if pad is None else PAD(*pad),
                scale=PADScale(fields.pop("scale")),
                recent_emotions=tuple(Emotion(**emotion) for emotion in fields.pop("recent_emotions", ())),
                trajectory=None if trajectory is None else Trajectory(**trajectory),
                **fields,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the emotional context is not well formed: {error}") from error

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]


def _with_keys(known: Mapping[str, Any], extra: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return `known` and `extra` together, in the order of `keys`; a known None is written only if its key came in."""
    merged = {key: value for key, value in known.items() if value is not None or key in keys} | dict(extra)
    return {key: merged[key] for key in (*(key for key in keys if key in merged), *merged)}


def _rows(values: ArrayLike) -> NDArray[Any]:
    """Return an array as it is, and anything else as float64 of shape (T, 3); nothing gives (0, 3)."""
    if isinstance(values, np.ndarray):
        return values
    try:
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidStateError("a trajectory is rows of three numbers", next_step="give [[p, a, d], ...]") from error
    return rows.reshape(0, len(AXES)) if rows.shape == (0,) else rows


def _check_floats(array: NDArray[Any], what: str) -> None:
    if array.dtype.kind != "f" or array.dtype.itemsize not in {4, 8}:
        raise InvalidStateError(f"{what} of dtype {array.dtype}", next_step="convert it to float32 or float64 yourself")
    if not np.isfinite(array).all():
        raise InvalidStateError(f"{what} with a value that is not finite", next_step="leave that instant out")


def _check_number(value: object, what: str) -> None:
    if value is not None and not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidStateError(f"{what} is {value!r}, not a number", next_step=f"give {what} as a float, or None")


def _triple(values: ArrayLike, what: str) -> tuple[float, float, float]:
    """Return three finite numbers as floats."""
    try:
        array = np.asarray(values).astype(np.float64, casting="safe")
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (len(AXES),) or not np.isfinite(array).all():
        raise InvalidStateError(f"{what} must be three finite numbers, not {values!r}", next_step="give [p, a, d]")
    first, second, third = array.tolist()
    return first, second, third


def _same(a: Trajectory | Emotion | EmotionalContext, b: object) -> bool:
    """Tell whether two values agree in type and in every bit; what counts is what would be stored."""
    return type(b) is type(a) and _content_id(a) == _content_id(b)


def _content_id(value: Trajectory | Emotion | EmotionalContext) -> str:
    document, arrays = flatten({"value": ("value", value.to_tree())})
    return content_id(document, identify(arrays))


def _set_fields(value: Trajectory | Emotion | EmotionalContext) -> dict[str, Any]:
    """Return the fields that are there: not None, and neither an empty tuple nor an empty dictionary."""
    return {
        name: item
        for name, item in vars(value).items()
        if item is not None and not (isinstance(item, (tuple, dict)) and not item)
    }
