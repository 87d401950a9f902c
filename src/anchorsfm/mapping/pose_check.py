"""Known poses held against matches that were found without them (docs/method.md, Mappers)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import MIN_PRIORS
from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.geometry.transforms import camera_centres, compose, invert, rotation_angle_deg
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.evidence import STRONG
from anchorsfm.mapping.with_poses import LOOSE_LINE_PX, loose_line_px, median_offsets_px, model_of_poses
from anchorsfm.scene.edit import with_poses
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.agreement import PairAgreement, pair_agreement

INEXACT_PX = 1.5
"""Median distance of matches from the lines, working pixels, from which on poses are not as exact as photographs are:
as far as a verified match may be off by itself."""
ROUGH_PX = 8.0
"""The same where focal lengths do not come with the poses: they are not exact before the adjustment."""
FAR = 4.0
"""An adjusted pose is doubted from this many times the expected distance (root mean square) from the given one on."""
_STATED = 2.0
"""Times the stated deviation of rotations that poses may be off without a warning."""
_ONE_PLACE = 1e-10
"""Positions that differ by less than this share of their coordinates are one."""
_NAMED = 5
"""Photographs that a line names."""
_FLIPPED = np.diag([1.0, -1.0, -1.0])
"""From cameras with y up and z backward to those with y down and z forward, and back."""
_OTHERS = "those of other photographs, with the focal length of another camera, or not exact"
"""What poses may be that are contradicted."""


@dataclass(frozen=True, kw_only=True)
class PoseCheck:
    """What matches that were verified without known poses say about them."""

    image: Int[np.ndarray, "view"]
    """Images whose pose is known; views are rows of this."""
    view: Int[np.ndarray, "pair 2"]
    """Pairs with enough verified matches to say something."""
    contradicted: Bool[np.ndarray, "pair"]
    """Most of their matches are not where the poses say."""
    pair_off_px: Float[np.ndarray, "pair"]
    """Median distance of their matches from the lines, working pixels."""

    @property
    def share(self) -> float:
        """Of the pairs that are contradicted; NaN: no pair says anything."""
        return float(self.contradicted.mean()) if len(self.view) else np.nan

    @property
    def off_px(self) -> float:
        """Median of the pairs that are not contradicted; NaN: there are none."""
        off = self.pair_off_px[~self.contradicted & np.isfinite(self.pair_off_px)]
        return float(np.median(off)) if len(off) else np.nan

    @property
    def doubted(self) -> Int[np.ndarray, "image"]:
        """Images most of whose pairs contradict their poses."""
        count, wrong = self._pairs_of(np.ones(len(self.view), bool)), self._pairs_of(self.contradicted)
        return self.image[2 * wrong > count]

    @property
    def confirmed(self) -> Int[np.ndarray, "image"]:
        """Images with a pair that agrees as closely as matches are exact: wrong poses do not by chance."""
        return self.image[self._pairs_of(~self.contradicted & (self.pair_off_px <= INEXACT_PX)) > 0]

    def _pairs_of(self, which: Bool[np.ndarray, "pair"]) -> Int[np.ndarray, "view"]:
        return np.bincount(self.view[which].reshape(-1), minlength=len(self.image))


def check_poses(given: MapperInput, line_px: float = LOOSE_LINE_PX) -> PoseCheck:
    """Hold known poses against all matches of `given`, which were verified without them.

    A match agrees if it lies within `line_px` working pixels of the epipolar lines and its rays meet in front of both
    cameras. Raises ValueError if no pose is known.
    """
    model = model_of_poses(given)
    found, strong = _agreement(given, model.cam_from_world, line_px)
    view, off = found.view[strong], dict(median_offsets_px(given))
    return PoseCheck(
        image=model.image_index,
        view=view,
        contradicted=(2 * found.agreeing < found.matches)[strong],
        pair_off_px=np.array([off[i, j] for i, j in model.image_index[view].tolist()], np.float64),
    )


def name_doubtful_poses(given: MapperInput, progress: Progress) -> None:
    """Warn of known poses that matches contradict.

    Raises InputError if no points can be made with them, or if those are most of them, which are to be kept exactly.
    """
    known = given.known
    assert known is not None, "poses are known"
    _require_places(given)
    check, source = check_poses(given), known.config.model
    if known.config.position_sigma is not None and len(known.poses) < MIN_PRIORS:
        progress.warn(f"{source}: stated deviations have no effect with fewer than {MIN_PRIORS} poses")
    if check.share > 0.5:
        _name_contradicted(check, given, progress)
        return
    if not known.config.freeze_poses:  # inexact ones are not wrong
        check = check_poses(given, loose_line_px(given))
    if len(check.doubted):
        progress.warn(
            f"{source}: most verified matches of {_listed(check.doubted, given)} are not where the poses say: these "
            "poses are wrong, or those of other photographs"
        )
    rows = np.unique(given.images.camera_index[check.image])
    limit_px = INEXACT_PX if given.known_camera[rows].all() else ROUGH_PX
    if check.off_px > limit_px and known.config.freeze_poses:
        progress.warn(
            f"{source}: verified matches lie {check.off_px:.1f} px (median) off the lines on which these poses place "
            "them: poses or focal lengths are not as exact as the photographs, and are better adjusted than kept"
        )


def _require_places(given: MapperInput) -> None:
    """Raises InputError if known poses are of fewer than two places."""
    known = given.known
    assert known is not None, "poses are known"
    centre = camera_centres(model_of_poses(given).cam_from_world)
    if len(centre) < 2:
        name = given.images.names[next(iter(known.poses))]
        raise InputError(f"{known.config.model}: only {name} has a pose: points need two photographs with poses")
    if np.ptp(centre, axis=0).max() <= _ONE_PLACE * np.abs(centre).max():
        raise InputError(
            f"{known.config.model}: all {len(centre)} poses are in one place: points need photographs from several"
        )


def _name_contradicted(check: PoseCheck, given: MapperInput, progress: Progress) -> None:
    """Of poses that most pairs contradict; raises InputError if these are to be kept, and nothing speaks for them."""
    known = given.known
    assert known is not None, "poses are known"
    source, count = known.config.model, f"{int(check.contradicted.sum())} of {len(check.view)} pairs"
    if 2 * len(check.confirmed) > len(check.image):
        doubted = np.setdiff1d(check.doubted, check.confirmed)
        of_them = f"the poses of {_listed(doubted, given)} are wrong, or " if len(doubted) else ""
        progress.warn(
            f"{source}: in {count} most verified matches are not where these poses say, but the others confirm them: "
            f"{of_them}things in different places look alike"
        )
        return
    remedy, off_px = _remedy(given), _usual_offset_px(given)
    if not remedy and off_px <= _STATED * _stated_px(given):
        return
    if not remedy:
        remedy = f"they are {off_px:.0f} px (median) off the lines: {_OTHERS}"
        remedy += " (then adjust them)" if known.config.freeze_poses else ""
    problem = (
        f"{source}: these poses contradict the photographs: in {count} most verified matches are not where the poses "
        f"say; {remedy}"
    )
    if known.config.freeze_poses:
        raise InputError(problem)
    progress.warn(problem)


def _usual_offset_px(given: MapperInput) -> float:
    return float(np.median([off for _, off in median_offsets_px(given) if np.isfinite(off)] or [np.inf]))


def _stated_px(given: MapperInput) -> float:
    """How far the stated deviation of rotations moves the lines, working pixels; 0: none is stated."""
    known = given.known
    if known is None or known.config.freeze_poses or known.config.rotation_sigma_deg is None:
        return 0.0
    focal_px = [focal_length_px(camera) for camera in given.cameras]
    working_px = np.array(focal_px)[given.images.camera_index] / given.working_scale
    return float(np.sqrt(2) * np.radians(known.config.rotation_sigma_deg) * np.median(working_px))


def _listed(images: Int[np.ndarray, "image"], given: MapperInput) -> str:
    names = [given.images.names[image] for image in images.tolist()]
    more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
    return f"{', '.join(names[:_NAMED])}{more}"


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
    """What the poses are instead of what they are taken for: that under which most pairs agree; empty: nothing is."""
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
        found, strong = _agreement(given, other, LOOSE_LINE_PX)
        if strong.any() and (2 * found.agreeing > found.matches)[strong].mean() > 0.5:
            return remedy
    return ""


def _agreement(
    given: MapperInput, cam_from_world: Float[np.ndarray, "view 3 4"], line_px: float
) -> tuple[PairAgreement, Bool[np.ndarray, "pair"]]:
    """How matches agree with some poses, and which pairs have enough of them."""
    model = with_poses(model_of_poses(given), cam_from_world)
    found = pair_agreement(model, given.matches, tolerance_px=line_px * given.working_scale)
    return found, found.matches >= STRONG
