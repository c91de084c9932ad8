"""PAD points and the scales on which they are given.

PAD is pleasure, arousal, dominance (Mehrabian & Russell 1974; Mehrabian 1996), each from -1 to 1. Other scales are
converted only when asked: values out of range are refused, never clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from quantum_memory.errors import InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    FloatArray = NDArray[np.floating[Any]]

AXES = ("pleasure", "arousal", "dominance")
"""The axes of PAD, in the order in which they are stored."""


class PADScale(Enum):
    """A scale on which PAD values are given, each axis an affine image of [-1, 1].

    ========  ===========================  ======================  =================================
    scale     range                        to bipolar              used by
    ========  ===========================  ======================  =================================
    bipolar   [-1, 1]                      x                       Mehrabian, ALMA, NRC-VAD 2
    unit      [0, 1]                       2 x - 1                 NRC-VAD 1
    likert9   [1, 9]                       (x - 5) / 4             ANEW, Warriner et al. 2013
    likert5   [1, 5]                       (x - 3) / 2             EmoBank
    mixed     pleasure [-1, 1],            x for pleasure,         files of the first implementation
              the others [0, 1]            2 x - 1 for the others
    ========  ===========================  ======================  =================================
    """

    BIPOLAR = "bipolar"
    UNIT = "unit"
    LIKERT9 = "likert9"
    LIKERT5 = "likert5"
    MIXED = "mixed"

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
        """The least and the greatest value of each axis."""
        both, upper = (-1.0, 1.0), (0.0, 1.0)
        if self is PADScale.MIXED:
            return both, upper, upper
        same = {"bipolar": both, "unit": upper, "likert9": (1.0, 9.0), "likert5": (1.0, 5.0)}[self.value]
        return same, same, same

    def check(self, values: ArrayLike) -> FloatArray:
        """Return `values` as a floating-point array of shape (..., 3), having checked that they are on this scale.

        The dtype of a floating-point array is kept; integers become float64.

        Raises
        ------
        InvalidStateError
            If the last axis has not length 3, or a value is out of range or not a number; it names axis and value.
        """
        try:
            array = np.asarray(values)
            array = array if array.dtype.kind == "f" else array.astype(np.float64, casting="safe")
        except (TypeError, ValueError) as error:
            raise InvalidStateError("PAD values must be real numbers", next_step="give [p, a, d]") from error
        if array.ndim == 0 or array.shape[-1] != len(AXES):
            raise InvalidStateError(
                f"PAD values come in threes, but the shape is {array.shape}",
                next_step="give [p, a, d] or an (..., 3) array",
            )
        low, high = np.transpose(self.bounds)
        outside = ~((array >= low) & (array <= high))  # negated, so that NaN is outside too
        if outside.any():
            where = np.argwhere(outside)[0]
            least, greatest = self.bounds[where[-1]]
            raise InvalidStateError(
                f"{AXES[where[-1]]} {array[tuple(where)]} is outside the {self.value} scale [{least:g}, {greatest:g}]",
                next_step="declare the scale of the values (PADScale), or correct the value; nothing is clipped",
            )
        return array

    def to_bipolar(self, values: ArrayLike) -> FloatArray:
        """Return `values`, given on this scale and of shape (..., 3), on [-1, 1]; the dtype is kept."""
        array = self.check(values)
        middle, half = self._affine(array.dtype)
        return (array - middle) / half

    def from_bipolar(self, values: ArrayLike) -> FloatArray:
        """Return `values`, given on [-1, 1] and of shape (..., 3), on this scale; the dtype is kept."""
        array = PADScale.BIPOLAR.check(values)
        middle, half = self._affine(array.dtype)
        return array * half + middle

    def _affine(self, dtype: np.dtype[Any]) -> tuple[FloatArray, FloatArray]:
        """Return the middle and half the range of each axis, which every floating-point dtype has exactly."""
        low, high = np.transpose(self.bounds)
        return ((low + high) / 2).astype(dtype), ((high - low) / 2).astype(dtype)


@dataclass(frozen=True)
class PAD:
    """A point of PAD space on the bipolar scale; it unpacks, indexes and converts to an array as a tuple does.

    Parameters
    ----------
    pleasure, arousal, dominance
        Each in [-1, 1].

    Raises
    ------
    InvalidStateError
        If a value is out of range or not a number.
    """

    pleasure: float
    arousal: float
    dominance: float

    def __post_init__(self) -> None:
        for axis, value in zip(
            AXES, PADScale.BIPOLAR.check([self.pleasure, self.arousal, self.dominance]), strict=True
        ):
            object.__setattr__(self, axis, float(value))

    @classmethod
    def of(cls, values: ArrayLike, scale: PADScale | str = PADScale.BIPOLAR) -> Self:
        """Return the point whose three `values` are given on `scale`, a `PADScale` or the name of one."""
        try:
            known = PADScale(scale)
        except ValueError:
            names = ", ".join(one.value for one in PADScale)
            raise InvalidStateError(f"there is no PAD scale {scale!r}", next_step=f"use one of {names}") from None
        point = known.to_bipolar(values)
        if point.ndim != 1:
            raise InvalidStateError(f"one PAD point has shape (3,), not {point.shape}", next_step="give [p, a, d]")
        return cls(*point.tolist())

    def to_scale(self, scale: PADScale) -> tuple[float, float, float]:
        """Return the three values on another `scale`."""
        pleasure, arousal, dominance = scale.from_bipolar(self).tolist()
        return pleasure, arousal, dominance

    def distance(self, other: PAD) -> float:
        """Return the Euclidean distance to `other`, from 0 to 2 sqrt(3)."""
        return float(np.linalg.norm(np.asarray(self) - np.asarray(other)))

    def __iter__(self) -> Iterator[float]:
        return iter((self.pleasure, self.arousal, self.dominance))

    def __len__(self) -> int:
        return len(AXES)

    def __getitem__(self, index: int) -> float:
        return tuple(self)[index]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a PAD is not stored as an array, so that one cannot be made without a copy")
        return np.array(tuple(self), dtype=dtype)


ANCHORS: Mapping[str, PAD] = MappingProxyType(
    {
        "joy": PAD(0.76, 0.48, 0.35),
        "anger": PAD(-0.51, 0.59, 0.25),
        "fear": PAD(-0.64, 0.60, -0.43),
        "sadness": PAD(-0.63, -0.27, -0.33),
        "disgust": PAD(-0.60, 0.35, 0.11),
        "surprise": PAD(0.40, 0.67, -0.13),
    }
)
"""Six emotions on which independent code bases agree, attributed to Russell & Mehrabian 1977."""
