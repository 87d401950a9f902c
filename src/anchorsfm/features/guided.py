"""Matches that are looked for along known epipolar lines (docs/method.md, Matches along known lines).

Where the poses of two cameras are known, a keypoint of one can only match those of the other in the band around its
epipolar line and in front of both. The second best descriptor is then that of the band: what repeats elsewhere in the
photograph hides nothing. But a narrow band has no good second best for keypoints without a partner either, so that the
ratio test lets many of them pass. How similar descriptors must be is therefore read off a control: the same search with
one camera turned about the baseline, where all that is found is chance.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.features.base import Features
from anchorsfm.features.one_to_one import one_to_one
from anchorsfm.geometry.transforms import cross_matrix, invert

MAX_CHANCE = 0.05
"""Largest share of chance matches among those that are found along the lines alone."""
_ROWS = 128
"""Descriptors, neighbours in the pencil of planes, that are compared at a time with all in the band of any of them."""
_MIN_TURN, _TURN_BANDS = 0.08, 3.0
"""Of the control: radians, and in widths of both bands, whichever is more. It must leave the band."""
_MIN_DEPTH = 0.1
"""Smallest cosine between a ray and the optical axis, for the control."""
_ROUNDING = 1e-6
"""More than angles in single precision are off, radians."""
_NONE = -2.0
"""Less than any cosine."""


@dataclass(frozen=True, kw_only=True)
class LineView:
    """One photograph of a pair whose poses are known."""

    unit: Float[torch.Tensor, "descriptor width"]
    """Descriptors of length 1."""
    keypoint: Int[np.ndarray, "descriptor"]
    """Keypoint of each."""
    ray: Float[np.ndarray, "descriptor 3"]
    """Where it is seen, in the frame of the camera; z = 1."""
    band: float
    """How far a match may be from the epipolar line, in the plane z = 1."""


@dataclass(frozen=True, kw_only=True)
class LineMatches:
    """Keypoints of two photographs that match along the lines; each occurs at most once."""

    keypoint: Int[np.ndarray, "match 2"]
    distance: Float[np.ndarray, "match"]
    """Between the descriptors of length 1."""

    def select(self, keep: Bool[np.ndarray, "match"]) -> "LineMatches":
        """Those of a mask."""
        return LineMatches(keypoint=self.keypoint[keep], distance=self.distance[keep])


def line_view(features: Features, plane: Float[np.ndarray, "keypoint 2"], band: float) -> LineView:
    """Features and where the camera sees their keypoints, in the plane z = 1 (NaN: nowhere, they are left out)."""
    seen = np.isfinite(plane).all(axis=1)[features.keypoint]
    keypoint = features.keypoint[seen]
    descriptor = torch.from_numpy(features.descriptor[seen]).float()
    return LineView(
        unit=torch.nn.functional.normalize(descriptor, dim=1),
        keypoint=keypoint.astype(np.int64),
        ray=np.column_stack([plane[keypoint], np.ones(len(keypoint))]),
        band=band,
    )


def match_along_lines(
    i: LineView,
    j: LineView,
    j_from_i: Float[np.ndarray, "3 4"],
    max_ratio: float,
    taken: Int[np.ndarray, "match 2"],
) -> LineMatches:
    """Matches along the epipolar lines besides those that are there already.

    Args:
        i: one photograph.
        j: the other.
        j_from_i: relative pose, with a baseline.
        max_ratio: largest ratio of the distances to the best and the second best descriptor of the band.
        taken: keypoints that match without the poses: they compete, and have no other match.
    """
    found = _besides(_mutual(i, j, j_from_i, max_ratio), taken)
    if MAX_CHANCE * len(found.distance) < 1:
        return found.select(np.zeros(len(found.distance), bool))  # too few to tell from chance
    turned = _turned(j, j_from_i, max(_MIN_TURN, _TURN_BANDS * (i.band + j.band)))
    chance = _besides(_mutual(i, turned, j_from_i, max_ratio), taken)
    return found.select(found.distance <= largest_distance(found.distance, chance.distance))


def largest_distance(found: Float[np.ndarray, "match"], chance: Float[np.ndarray, "control"]) -> float:
    """The largest distance up to which at most `MAX_CHANCE` of what was found is chance; -1: no such distance."""
    ordered = np.sort(found)
    by_chance = 1 + np.searchsorted(np.sort(chance), ordered, side="right")
    good = np.flatnonzero(by_chance <= MAX_CHANCE * np.arange(1, len(ordered) + 1))
    return float(ordered[good[-1]]) if len(good) else -1.0


def _besides(found: LineMatches, taken: Int[np.ndarray, "match 2"]) -> LineMatches:
    is_taken = np.isin(found.keypoint[:, 0], taken[:, 0]) | np.isin(found.keypoint[:, 1], taken[:, 1])
    return found.select(~is_taken)


def _turned(view: LineView, j_from_i: Float[np.ndarray, "3 4"], angle: float) -> LineView:
    """Camera j turned about the baseline."""
    base = j_from_i[:, 3] / np.linalg.norm(j_from_i[:, 3])
    ray = view.ray @ Rotation.from_rotvec(angle * base).as_matrix().T
    ahead = ray[:, 2] > _MIN_DEPTH * np.linalg.norm(ray, axis=1)
    ray = ray[ahead] / ray[ahead, 2:]
    return replace(view, unit=view.unit[torch.from_numpy(ahead)], keypoint=view.keypoint[ahead], ray=ray)


def _mutual(i: LineView, j: LineView, j_from_i: Float[np.ndarray, "3 4"], max_ratio: float) -> LineMatches:
    """Descriptors that are most similar to each other, of those in the band, by the ratio."""
    best = torch.full((len(i.keypoint),), _NONE)
    second, column = best.clone(), torch.zeros(len(best), dtype=torch.int64)
    best_of_column = torch.full((len(j.keypoint),), _NONE)
    row_of_column = torch.full((len(j.keypoint),), -1, dtype=torch.int64)
    pencil = _Pencil(i, j, j_from_i)
    for rows, columns in pencil.blocks():
        cosine = i.unit[rows] @ j.unit[columns].T
        cosine[torch.from_numpy(~pencil.allowed(rows, columns))] = _NONE
        here, there = torch.from_numpy(rows), torch.from_numpy(columns)
        value, place = cosine.max(dim=0)
        better = value > best_of_column[there]
        best_of_column[there[better]] = value[better]
        row_of_column[there[better]] = here[place[better]]
        value, place = cosine.max(dim=1)
        best[here], column[here] = value, there[place]
        cosine[torch.arange(len(rows)), place] = _NONE
        second[here] = cosine.max(dim=1).values
    near, far = (2 - 2 * best).clamp_min(0).numpy(), (2 - 2 * second).numpy()
    is_mutual = row_of_column[column].numpy() == np.arange(len(near)) if len(j.keypoint) else np.zeros(len(near), bool)
    row = np.flatnonzero(is_mutual & (best > _NONE).numpy() & (near < max_ratio**2 * far))
    pairs = np.stack([i.keypoint[row], j.keypoint[column.numpy()[row]]], axis=1)
    chosen = one_to_one(pairs, 1 - np.sqrt(near[row]) / 2)
    return LineMatches(keypoint=chosen.keypoint, distance=2 * (1 - chosen.score.astype(np.float64)))


class _Pencil:
    """The epipolar planes of a pair, which have the baseline in common: where they are, and what is near which."""

    def __init__(self, i: LineView, j: LineView, j_from_i: Float[np.ndarray, "3 4"]) -> None:
        rotation = j_from_i[:, :3]
        base = invert(j_from_i)[:, 3]
        base = base / np.linalg.norm(base)
        essential = cross_matrix(-rotation @ base) @ rotation
        self._across_i, self._from_base_i = _about(base, i.ray)
        self._across_j, self._from_base_j = _about(base, j.ray @ rotation)
        self._angle_i, self._angle_j = (np.arctan2(y, x) for x, y in (self._across_i.T, self._across_j.T))
        sine = np.hypot(*self._across_j.T)
        # the angle of a plane about the baseline that a ray at the edge of the band is off by
        self._reach = np.where(sine > j.band, np.arcsin(np.minimum(j.band / np.maximum(sine, j.band), 1)), np.pi)
        self._reach = (self._reach + _ROUNDING).astype(np.float32)
        line_j, line_i = i.ray @ essential.T, j.ray @ essential
        self._line_j = line_j.astype(np.float32)
        self._ray_j = j.ray.astype(np.float32)
        # a distance is the residual over the length of the normal in the plane z = 1
        self._limit_i = (i.band * np.hypot(line_i[:, 0], line_i[:, 1])).astype(np.float32)
        self._limit_j = (j.band * np.hypot(line_j[:, 0], line_j[:, 1])).astype(np.float32)
        self._slack = i.band + j.band
        self._order = np.argsort(self._angle_i, kind="stable")

    def blocks(self) -> Iterator[tuple[Int[np.ndarray, "row"], Int[np.ndarray, "column"]]]:
        """Descriptors of i, each once, and those of j that may be in the band of any of them."""
        full = np.float32(2 * np.pi)
        for first in range(0, len(self._order), _ROWS):
            rows = self._order[first : first + _ROWS]
            low, high = self._angle_i[rows[0]], self._angle_i[rows[-1]]
            apart = np.abs(self._angle_j - (low + high) / 2)
            columns = np.flatnonzero(np.minimum(apart, full - apart) - self._reach <= (high - low) / 2)
            if len(columns):
                yield rows, columns

    def allowed(
        self, rows: Int[np.ndarray, "row"], columns: Int[np.ndarray, "column"]
    ) -> Bool[np.ndarray, "row column"]:
        """Which lie in each other's band, with rays that meet in front of both cameras, or nearly so far away."""
        residual = np.abs(self._line_j[rows] @ self._ray_j[columns].T)
        inside = residual <= np.minimum(self._limit_j[rows, None], self._limit_i[columns])
        inside &= self._from_base_j[columns] + self._slack > self._from_base_i[rows, None]
        inside &= self._across_i[rows] @ self._across_j[columns].T > 0  # on the same side of the baseline
        return inside


def _about(
    base: Float[np.ndarray, "3"], ray: Float[np.ndarray, "ray 3"]
) -> tuple[Float[np.ndarray, "ray 2"], Float[np.ndarray, "ray"]]:
    """Of rays: what is across the baseline of those of length 1, and the angle between them and it."""
    first = np.cross(base, np.eye(3)[np.abs(base).argmin()])
    first /= np.linalg.norm(first)
    unit = ray / np.linalg.norm(ray, axis=1)[:, None]
    across = unit @ np.stack([first, np.cross(base, first)], axis=1)
    return across.astype(np.float32), np.arctan2(np.hypot(*across.T), unit @ base).astype(np.float32)
