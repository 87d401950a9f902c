"""Keypoints of two detectors in one set: which are less exact, and which of their tracks may move the cameras.

Keypoints of trained networks lie less exactly than those of SIFT, and not at random: of two wide views they turn the
cameras by several times what their number would suggest. So where exact keypoints hold views together by themselves,
cameras are adjusted to these alone, and what the others found is added as points that the adjusted cameras see. Tracks
of coarse keypoints count in full where they connect what exact ones do not, and where three and more views see them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from anchorsfm.geometry.links import connected_groups
from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.reconstruction import Tracks

ENOUGH = 200
"""Exact tracks that two views share from which on they hold together by these."""
MANY_VIEWS = 3


@dataclass(frozen=True, kw_only=True)
class CoarseKeypoints:
    """Keypoints, which are their coordinates, that are less exact than the others of a set."""

    xy: Mapping[int, Float[np.ndarray, "_ 2"]]
    """By index of the image, original pixels."""

    def among(self, image: Int[np.ndarray, "point"], xy: Float[np.ndarray, "point 2"]) -> Bool[np.ndarray, "point"]:
        """Which of some keypoints these are."""
        found = np.zeros(len(image), bool)
        for number, mine in self.xy.items():
            rows = np.flatnonzero(image == number)
            found[rows] = np.isin(_one_number(xy[rows]), _one_number(mine))
        return found


@dataclass(frozen=True, kw_only=True)
class SplitTracks:
    """Tracks by what they may do."""

    adjusting: Tracks
    """Cameras are adjusted to these."""
    added: Tracks
    """These become points of the adjusted cameras."""


def split_tracks(tracks: Tracks, coarse: CoarseKeypoints) -> SplitTracks:
    """Tracks that cameras are adjusted to, and those that are only added."""
    is_coarse = coarse.among(tracks.obs_image, tracks.obs_xy)
    exact_views = np.bincount(tracks.obs_point[~is_coarse], minlength=tracks.num_points)
    views = np.bincount(tracks.obs_point, minlength=tracks.num_points)
    is_exact = exact_views >= 2
    group = _held_together(tracks, (is_exact[tracks.obs_point]) & ~is_coarse)
    first = group[tracks.obs_image[np.searchsorted(tracks.obs_point, np.arange(tracks.num_points))]]
    apart = np.zeros(tracks.num_points, bool)
    np.logical_or.at(apart, tracks.obs_point, group[tracks.obs_image] != first[tracks.obs_point])
    adjusts = is_exact | apart | (views >= MANY_VIEWS)
    adjusting, _ = select_observations(tracks, adjusts[tracks.obs_point])
    added, _ = select_observations(tracks, ~adjusts[tracks.obs_point])
    return SplitTracks(adjusting=adjusting, added=added)


def _held_together(tracks: Tracks, exact: Bool[np.ndarray, "obs"]) -> Int[np.ndarray, "image"]:
    """Groups of images that pairs with enough exact tracks connect."""
    num_images = int(tracks.obs_image.max(initial=-1)) + 1
    seen = csr_array(
        (np.ones(int(exact.sum()), np.int64), (tracks.obs_image[exact], tracks.obs_point[exact])),
        (num_images, tracks.num_points),
    )
    shared = np.asarray((seen @ seen.T).todense())
    return connected_groups(num_images, np.argwhere(np.triu(shared >= ENOUGH, 1)))


def _one_number(xy: Float[np.ndarray, "point 2"]) -> np.ndarray:
    """Coordinates as complex numbers, which are equal where both are."""
    return np.asarray(xy[:, 0] + 1j * xy[:, 1], np.complex128)
