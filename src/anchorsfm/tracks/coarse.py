"""Keypoints that are less exact than others of the same photographs, known by their coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

ENOUGH = 200
"""Exact tracks that two views share from which on they hold together by these."""
ENOUGH_REFINED = 30
"""The same where all exact ones are refined in the photographs: with a fifth of the error, a tenth of them say more. As
few matches make a pair."""


@dataclass(frozen=True, kw_only=True)
class CoarseKeypoints:
    """Keypoints, which are their coordinates, that are less exact than the others of a set."""

    xy: Mapping[int, Float[np.ndarray, "_ 2"]]
    """By index of the image, original pixels."""
    others_are_refined: bool = False
    """Whether all others of the set are refined in the photographs."""

    @property
    def enough(self) -> int:
        """Tracks of the others that hold two views together without these."""
        return ENOUGH_REFINED if self.others_are_refined else ENOUGH

    @staticmethod
    def of(image: Int[np.ndarray, "point"], xy: Float[np.ndarray, "point 2"]) -> "CoarseKeypoints":
        """These keypoints."""
        return CoarseKeypoints(xy={number: xy[image == number] for number in np.unique(image).tolist()})

    def among(self, image: Int[np.ndarray, "point"], xy: Float[np.ndarray, "point 2"]) -> Bool[np.ndarray, "point"]:
        """Which of some keypoints these are."""
        found = np.zeros(len(image), bool)
        for number, mine in self.xy.items():
            rows = np.flatnonzero(image == number)
            found[rows] = np.isin(_one_number(xy[rows]), _one_number(mine))
        return found


def _one_number(xy: Float[np.ndarray, "point 2"]) -> np.ndarray:
    """Coordinates as complex numbers, which are equal where both are."""
    return np.asarray(xy[:, 0] + 1j * xy[:, 1], np.complex128)
