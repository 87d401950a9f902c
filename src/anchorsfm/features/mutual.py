"""Mutual nearest neighbours: descriptors of two photographs that are most similar to each other, of any detector."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.one_to_one import one_to_one
from anchorsfm.io.store import digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.errors import InputError

VERSION = 1
"""Raise when results change: what older versions cached is then ignored."""
_ROWS = 2048
"""Descriptors that are compared with all others at a time."""


@dataclass(frozen=True, kw_only=True)
class UnitDescriptors:
    """Descriptors of length 1."""

    unit: Float[torch.Tensor, "descriptor width"]
    keypoint: Int[np.ndarray, "descriptor"]


class MutualMatcher:
    """Compares all descriptors of two photographs by the cosine of their angle, which is the score (0 if negative)."""

    is_concurrent = True
    licence: LicenceRecord | None = None

    def __init__(self) -> None:
        self.digest = digest("mutual nearest neighbours", VERSION)

    def prepare(self, features: Features) -> UnitDescriptors:
        """Descriptors of any kind that are compared by their angle."""
        descriptor = torch.from_numpy(features.descriptor).float()
        return UnitDescriptors(unit=torch.nn.functional.normalize(descriptor, dim=1), keypoint=features.keypoint)

    def match(self, i: UnitDescriptors, j: UnitDescriptors) -> FeatureMatches:
        """Raises InputError if the descriptors have different widths."""
        if i.unit.shape[1] != j.unit.shape[1]:
            raise InputError(
                f"descriptors of {i.unit.shape[1]} and {j.unit.shape[1]} numbers cannot be compared: "
                "these photographs have keypoints of different detectors"
            )
        if not len(i.unit) or not len(j.unit):
            return FeatureMatches.empty()
        best, column = [], []
        best_of_column = torch.full((len(j.unit),), -torch.inf)
        row_of_column = torch.zeros(len(j.unit), dtype=torch.int64)
        for first in range(0, len(i.unit), _ROWS):
            cosine = i.unit[first : first + _ROWS] @ j.unit.T
            value, place = cosine.max(dim=1)
            best.append(value)
            column.append(place)
            value, place = cosine.max(dim=0)
            row_of_column = torch.where(value > best_of_column, place + first, row_of_column)
            best_of_column = torch.maximum(value, best_of_column)
        there = torch.cat(column)
        row = torch.nonzero(row_of_column[there] == torch.arange(len(there)))[:, 0]
        pairs = np.stack([i.keypoint[row.numpy()], j.keypoint[there[row].numpy()]], axis=1)
        return one_to_one(pairs, torch.cat(best)[row].clamp(0, 1).numpy())
