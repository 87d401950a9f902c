"""Known poses held against matches that were found without them (docs/method.md, Mappers)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.geometry.transforms import camera_centres, compose, invert, rotation_angle_deg
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.evidence import STRONG
from anchorsfm.mapping.with_poses import LOOSE_LINE_PX, line_offsets_px, model_of_poses
from anchorsfm.scene.edit import with_poses
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.agreement import PairAgreement, pair_agreement

INEXACT_PX = 1.5
"""Median distance of matches from the lines, working pixels, from which on poses are not as exact as photographs are:
as far as a verified match may be off by itself."""
FAR = 4.0
"""An adjusted pose is doubted from this many times the expected distance (root mean square) from the given one on."""
_NAMED = 5
"""Photographs that a line names."""
_FLIPPED = np.diag([1.0, -1.0, -1.0])
"""From cameras with y up and z backward to those with y down and z forward, and back."""


@dataclass(frozen=True, kw_only=True)
class PoseCheck:
    """What matches that were verified without known poses say about them."""

    image: Int[np.ndarray, "view"]
    """Images whose pose is known; views are rows of this."""
    view: Int[np.ndarray, "pair 2"]
    """Pairs with enough verified matches to say something."""
    contradicted: Bool[np.ndarray, "pair"]
    """Most of their matches are not where the poses say."""
    off_px: float
    """Median distance from the lines of matches of the other pairs, working pixels; NaN: there are none."""

    @property
    def share(self) -> float:
        """Of the pairs that are contradicted; NaN: no pair says anything."""
        return float(self.contradicted.mean()) if len(self.view) else np.nan

    @property
    def doubted(self) -> Int[np.ndarray, "image"]:
        """Images most of whose pairs contradict their poses."""
        count, wrong = (
            np.bincount(pairs.reshape(-1), minlength=len(self.image))
            for pairs in (self.view, self.view[self.contradicted])
        )
        return self.image[2 * wrong > count]


def check_poses(given: MapperInput) -> PoseCheck:
    """Hold known poses against all matches of `given`, which were verified without them.

    A match agrees if it lies within `LOOSE_LINE_PX` of the epipolar lines and its rays meet in front of both cameras.
    Raises ValueError if no pose is known.
    """
    model = model_of_poses(given)
    found, strong = _agreement(given, model.cam_from_world)
    contradicted = (2 * found.agreeing < found.matches)[strong]
    view = found.view[strong]
    return PoseCheck(
        image=model.image_index,
        view=view,
        contradicted=contradicted,
        off_px=_median_offset_px(given, model.image_index[view[~contradicted]]),
    )


def name_doubtful_poses(given: MapperInput, progress: Progress) -> None:
    """Warn of known poses that matches contradict.

    Raises InputError if that are most of them, and they are to be kept exactly.
    """
    known = given.known
    assert known is not None, "poses are known"
    check, source = check_poses(given), known.config.model
    if check.share > 0.5:
        problem = (
            f"{source}: these poses contradict the photographs: in {int(check.contradicted.sum())} of "
            f"{len(check.view)} pairs most verified matches are not where the poses say; {_remedy(given)}"
        )
        if known.config.freeze_poses:
            raise InputError(problem)
        progress.warn(problem)
        return
    if len(check.doubted):
        names = [given.images.names[image] for image in check.doubted.tolist()]
        more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
        progress.warn(
            f"{source}: most verified matches of {', '.join(names[:_NAMED])}{more} are not where the poses say: these "
            "poses are wrong, or those of other photographs"
        )
    if check.off_px > INEXACT_PX and known.config.freeze_poses:
        progress.warn(
            f"{source}: verified matches lie {check.off_px:.1f} px (median) off the lines on which these poses place "
            "them: poses or focal lengths are not as exact as the photographs, and are better adjusted than kept"
        )


def name_far_poses(model: Reconstruction, given: MapperInput, progress: Progress) -> None:
    """Warn of adjusted poses that are further from the given ones than their stated deviations explain."""
    known = given.known
    if known is None or known.config.freeze_poses or known.config.position_sigma is None:
        return
    view = np.array([row for row, image in enumerate(model.image_index.tolist()) if image in known.poses], np.int64)
    if not len(view):
        return
    found = model.cam_from_world[view]
    poses = np.stack([known.poses[image] for image in model.image_index[view].tolist()])
    moved = np.linalg.norm(camera_centres(found) - camera_centres(poses), axis=1)
    times = moved / (np.sqrt(3) * known.config.position_sigma)
    if known.config.rotation_sigma_deg is not None:
        turned = rotation_angle_deg(found[:, :, :3] @ np.swapaxes(poses[:, :, :3], 1, 2))
        times = np.maximum(times, turned / (np.sqrt(3) * known.config.rotation_sigma_deg))
    far, worst = int((times > FAR).sum()), int(times.argmax())
    if far:
        progress.warn(
            f"{known.config.model}: {far} of {len(times)} adjusted poses are more than {FAR:.0f} times their stated "
            f"deviations from the given ones ({given.images.names[model.image_index[view[worst]]]}: "
            f"{times[worst]:.0f} times): the deviations are too small, these poses wrong, or a focal length is that of "
            "another camera"
        )


def _remedy(given: MapperInput) -> str:
    """What the poses may be instead of what they are taken for: that under which most pairs agree, if there is one."""
    poses = model_of_poses(given).cam_from_world
    flip = np.column_stack([_FLIPPED, np.zeros(3)])
    others: Mapping[str, Float[np.ndarray, "view 3 4"]] = {
        "they agree when they are inverted (world_from_cam where cam_from_world is expected, or the other way round)": (
            invert(poses)
        ),
        "they agree with y and z of the cameras turned round (y up, z backward, where y down, z forward is expected)": (
            compose(flip, poses)
        ),
        "they agree when they are inverted, with y and z of the cameras turned round": compose(flip, invert(poses)),
    }
    for remedy, other in others.items():
        found, strong = _agreement(given, other)
        if strong.any() and (2 * found.agreeing > found.matches)[strong].mean() > 0.5:
            return remedy
    return "are they those of other photographs, or the focal length that of another camera?"


def _agreement(
    given: MapperInput, cam_from_world: Float[np.ndarray, "view 3 4"]
) -> tuple[PairAgreement, Bool[np.ndarray, "pair"]]:
    """How matches agree with some poses, and which pairs have enough of them."""
    model = with_poses(model_of_poses(given), cam_from_world)
    tolerance_px = LOOSE_LINE_PX * given.working_scale
    found = pair_agreement(model, given.matches, tolerance_px=tolerance_px)
    return found, found.matches >= STRONG


def _median_offset_px(given: MapperInput, pairs: Int[np.ndarray, "pair 2"]) -> float:
    matches, off = given.matches, [np.zeros(0)]
    for i, j in pairs.tolist():
        for a, b in ((i, j), (j, i)):
            rows = (matches.image_i == a) & (matches.image_j == b)
            off.append(line_offsets_px(given, a, b, matches.xy_i[rows], matches.xy_j[rows]).max(axis=1))
    every = np.concatenate(off)
    return float(np.median(every)) if len(every) else np.nan
