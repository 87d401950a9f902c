"""Keypoints of two detectors in one set: which are less exact, and which of their tracks may move the cameras.

Keypoints of trained networks lie less exactly than those of SIFT, and not at random: of two wide views they turn the
cameras by several times what their number would suggest. So where exact keypoints hold views together by themselves,
cameras are adjusted to these alone, and what the others found is added as points that the adjusted cameras see. Tracks
of coarse keypoints count in full where they connect what exact ones do not, and where three and more views see them.

Before that, coarse observations are moved to where the photographs agree (`subpixel`). Those for which that succeeds, a
tenth to a third of two wide views and two thirds of three, are exact from then on. In models of few views all
observations are taken for coarse: SIFT's have errors that depend on where a surface is seen from, some .3 pixels, which
few observations of a point do not average away and which bend what few views hardly determine, focal length and
principal point.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from anchorsfm.geometry.links import connected_groups
from anchorsfm.io.store import Store
from anchorsfm.scene.edit import joined_tracks, select_observations
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.config import SubpixelConfig
from anchorsfm.tracks.subpixel import refine_observations

MANY_VIEWS = 3


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
    group = _held_together(tracks, (is_exact[tracks.obs_point]) & ~is_coarse, coarse.enough)
    first = group[tracks.obs_image[np.searchsorted(tracks.obs_point, np.arange(tracks.num_points))]]
    apart = np.zeros(tracks.num_points, bool)
    np.logical_or.at(apart, tracks.obs_point, group[tracks.obs_image] != first[tracks.obs_point])
    adjusts = is_exact | apart | (views >= MANY_VIEWS)
    adjusting, _ = select_observations(tracks, adjusts[tracks.obs_point])
    added, _ = select_observations(tracks, ~adjusts[tracks.obs_point])
    return SplitTracks(adjusting=adjusting, added=added)


def refine_coarse(
    tracks: Tracks,
    coarse: CoarseKeypoints,
    images: ImageSet,
    config: SubpixelConfig,
    *,
    uncertainty_px: Float[np.ndarray, "image"],
    model: Reconstruction,
    store: Store | None = None,
    progress: Progress = SILENT,
) -> tuple[Tracks, CoarseKeypoints]:
    """Tracks whose coarse observations are exact where the photographs allow it, and the keypoints that stay coarse.

    Tracks of which two and more observations agree in the photographs keep those; others stay as they are.

    Args:
        tracks: observations in original pixels.
        coarse: the less exact ones among them.
        images: the photographs, read again here.
        config: of the refinement; whatever it says about failures.
        uncertainty_px: standard deviation of the observations of each image in original pixels.
        model: cameras and poses, approximately.
        store: keeps what came of each photograph.
        progress: receives a stage with a step per photograph read.

    Raises:
        InputError: a photograph can no longer be read.
    """
    is_coarse = np.zeros(tracks.num_points, bool)
    is_coarse[tracks.obs_point[coarse.among(tracks.obs_image, tracks.obs_xy)]] = True
    exact, _ = select_observations(tracks, ~is_coarse[tracks.obs_point])
    doubtful, _ = select_observations(tracks, is_coarse[tracks.obs_point])
    refined = refine_observations(
        doubtful,
        images,
        replace(config, on_failure="drop"),
        uncertainty_px=uncertainty_px,
        model=model,
        store=store,
        progress=progress,
    )
    is_refined = np.zeros(doubtful.num_points, bool)
    is_refined[doubtful.obs_point[refined.kept]] = True
    left, _ = select_observations(doubtful, ~is_refined[doubtful.obs_point])
    stays = coarse.among(left.obs_image, left.obs_xy)
    still_coarse = CoarseKeypoints.of(left.obs_image[stays], left.obs_xy[stays])
    still_coarse = replace(still_coarse, others_are_refined=not exact.num_points)
    return joined_tracks(exact, refined.tracks, left), still_coarse


def _held_together(tracks: Tracks, exact: Bool[np.ndarray, "obs"], enough: int) -> Int[np.ndarray, "image"]:
    """Groups of images that pairs with enough exact tracks connect."""
    num_images = int(tracks.obs_image.max(initial=-1)) + 1
    seen = csr_array(
        (np.ones(int(exact.sum()), np.int64), (tracks.obs_image[exact], tracks.obs_point[exact])),
        (num_images, tracks.num_points),
    )
    shared = np.asarray((seen @ seen.T).todense())
    return connected_groups(num_images, np.argwhere(np.triu(shared >= enough, 1)))
