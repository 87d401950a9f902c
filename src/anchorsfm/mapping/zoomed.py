"""Photographs of one size that do not share a focal length, with nothing that says so: they get cameras of their own.

Where only their sizes say that photographs share a camera, or that they are frames of one video, some of them may be
zoomed, cropped and enlarged, or taken with another lens of the same phone. An adjustment with one camera for all hides
that well: poses make up for most of it, and are wrong by it. So each view of an adjusted model is asked for its own
focal length (`tracks.view_fit`) by points that the others make without it, and once more without the others that show
most of the same: they may be zoomed with it. As neighbours of such views are bent with them, those that say another one
than the camera's are asked again with points of the remaining views only. Those that still do are grouped by it, each
group gets a camera, and the model is adjusted again. That counts for the groups that fit better then. The others may
still be bent by each other, so that the views of the new model are worth being asked.

Views whose poses stay were asked when these were found: only what was added to them is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import focal_length_px, with_focal_length
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.consistency import Change
from anchorsfm.scene.edit import select_observations, view_of_image, with_cameras_of_views, with_poses
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.points import ray_bundle
from anchorsfm.tracks.resect import absolute_pose
from anchorsfm.tracks.residuals import pixel_errors
from anchorsfm.tracks.triangulate import triangulate
from anchorsfm.tracks.view_fit import ViewFit, find_zoom

_MIN_VIEWS = 4
"""Models with fewer do not show which of them are zoomed."""
_MIN_OTHERS = 3
"""Views that points are made of: fewer, or less than a third, are not taken for the right ones."""
_COMPANIONS = 5
"""Views that show most of what one shows, and are not listened to when all are asked once more: what was zoomed for a
while hides among what was zoomed with it."""
_MAX_OBSERVATIONS = 300
"""Of a view, that are looked at."""
_MIN_CHANGE = 0.02
"""Focal lengths that differ by a smaller share from the camera's are what lens and points leave open of one view."""
_SAME_GROUP = 0.03
"""Focal lengths that differ by a smaller share from the next are those of one camera."""
_MORE, _NO_WORSE = 1.05, 1.5
"""How many times more observations of zoomed views must agree, and what their median error may rise to ..."""
_WORTH, _KEPT = 0.95, 0.95
"""... or what their median error must fall to, and the share of them that must be left."""


@dataclass(frozen=True, kw_only=True)
class Zoomed:
    """A model whose zoomed photographs have cameras of their own, to be adjusted."""

    model: Reconstruction
    given: MapperInput
    """With these cameras."""
    groups: tuple[tuple[int, ...], ...]
    """Images of each of them."""
    rest: tuple[tuple[int, ...], ...]
    """Images that keep the camera that each group had."""
    fits: dict[int, ViewFit]
    """Of the views that they are made of."""

    def confirmed(self, before: Reconstruction, after: Reconstruction) -> tuple[tuple[int, ...], ...]:
        """Groups that fit the adjusted model better; none if it has lost a photograph."""
        if len(after.image_index) < len(before.image_index):
            return ()
        errors = [(pixel_errors(model), model.tracks.obs_image) for model in (before, after)]
        found = []
        for group, rest in zip(self.groups, self.rest, strict=True):
            own_px = _focal_px_of(after, group[0])
            other_px = _focal_px_of(after, rest[0]) if rest else _focal_px_of(before, group[0])
            was, now = (error[np.isin(image, group)] for error, image in errors)
            was_px, now_px = np.median(was), np.median(now)
            fits_better = len(now) >= _KEPT * len(was) and now_px <= _WORTH * was_px
            # a wrong focal length agrees with few observations, and these well
            fits_more = len(now) >= _MORE * len(was) and now_px <= _NO_WORSE * was_px
            if (fits_better or fits_more) and abs(own_px / other_px - 1) >= _MIN_CHANGE:
                found.append(group)
        return tuple(found)

    def only(self, groups: tuple[tuple[int, ...], ...], model: Reconstruction, given: MapperInput) -> "Zoomed":
        """The same of some groups: neighbours of zoomed views may look zoomed too, until these have their cameras.

        Args:
            groups: some.
            model, given: as in `find_zoomed`.
        """
        views = view_of_image(model)[[image for group in groups for image in group]].tolist()
        return _with_cameras(model, given, {view: fit for view, fit in self.fits.items() if view in views})


def find_zoomed(
    model: Reconstruction, given: MapperInput, config: AdjustConfig, kept_pose: Bool[np.ndarray, "view"]
) -> Zoomed | None:
    """Photographs of an adjusted model that have another focal length than their camera; None: none are seen.

    Args:
        model: with points.
        given: what it was made from.
        config: thresholds of the adjustment.
        kept_pose: views whose poses stay.
    """
    may_be_zoomed = given.images.may_be_zoomed
    if may_be_zoomed is None or len(model.image_index) < _MIN_VIEWS or not len(model.points):
        return None
    camera, may_differ = given.images.camera_index[model.image_index], may_be_zoomed[model.image_index] & ~kept_pose
    may_differ &= ~_is_given(given)[camera] & _have_one_size(given.images.size_wh[model.image_index])
    fits = _own_focal_lengths(model, given, config, np.flatnonzero(may_differ), num_right=int(kept_pose.sum()))
    if not fits:
        return None
    return _with_cameras(model, given, fits)


def zoom_changes(before: Reconstruction, after: Reconstruction, given: MapperInput, own: MapperInput) -> list[Change]:
    """What the photographs of a model have got that no longer have the camera of the others.

    Args:
        before, after: the model without and with further cameras.
        given, own: what they were made from.
    """
    rows, former_rows = (of.images.camera_index[after.image_index] for of in (own, given))
    changes = []
    for former, row in np.unique(np.stack([former_rows, rows], axis=1), axis=0).tolist():
        images = after.image_index[(rows == row) & (former_rows == former)]
        whole = int((former_rows == former).sum())
        px, former_px = (_focal_px_of(model, int(images[0])) for model in (after, before))
        if row == former and (2 * len(images) > whole or abs(px / former_px - 1) < _MIN_CHANGE):
            continue
        text = f"a camera of their own: a focal length of {px:.0f} px, not {former_px:.0f} px"
        changes.append(Change(images=tuple(images.tolist()), what=text))
    return changes


def _focal_px_of(model: Reconstruction, image: int) -> float:
    return focal_length_px(model.cameras[model.camera_index[view_of_image(model)[image]]])


def _have_one_size(size_wh: Int[np.ndarray, "view 2"]) -> Bool[np.ndarray, "view"]:
    """Whose pictures have the size of another."""
    _, size, count = np.unique(size_wh, axis=0, return_inverse=True, return_counts=True)
    return count[size.reshape(-1)] > 1


def _is_given(given: MapperInput) -> Bool[np.ndarray, "camera"]:
    """Cameras that the user knows: those of earlier models stay as well, but not every photograph need be theirs."""
    return given.known_camera if given.known is None else given.known.frozen_cameras(np.arange(len(given.cameras)))


def _own_focal_lengths(
    model: Reconstruction,
    given: MapperInput,
    config: AdjustConfig,
    asked: Int[np.ndarray, "asked"],
    *,
    num_right: int,
) -> dict[int, ViewFit]:
    """Of the views whose points say another focal length than their camera's; `num_right` of the others are right."""
    every = np.arange(len(model.image_index))
    limit_px = config.second_error * given.images.size_wh[model.image_index].max(axis=1).astype(np.float64)
    seen = _Seen(tracks=given.tracks, model=model, limit_px=limit_px, config=config)
    fits = _with_fit({view: seen.zoom(view, seen.others(view, 0)) for view in asked.tolist()})
    few = min(_COMPANIONS, (len(every) - 1) // 3)
    hidden = _with_fit({view: seen.zoom(view, seen.others(view, few)) for view in asked.tolist() if view not in fits})
    fits |= _alike(hidden, fits) if fits else hidden
    others = np.setdiff1d(every, list(fits))
    if num_right < _MIN_OTHERS and len(others) < max(_MIN_OTHERS, len(every) / 3):  # as many may be zoomed as not
        return fits
    again = {view: seen.zoom(view, others, unseen=fit) for view, fit in fits.items()}
    sure = _with_fit(again)
    return dict(sorted((_alike(fits, sure) | sure).items()))


def _with_fit(found: Mapping[int, ViewFit | None]) -> dict[int, ViewFit]:
    return {view: fit for view, fit in found.items() if fit is not None}


def _alike(fits: Mapping[int, ViewFit], sure: Mapping[int, ViewFit]) -> dict[int, ViewFit]:
    """Those whose focal length is that of a sure one."""
    sure_px = np.array([focal_length_px(fit.camera) for fit in sure.values()])
    return {
        view: fit
        for view, fit in fits.items()
        if (np.abs(np.log(sure_px / focal_length_px(fit.camera))) < _SAME_GROUP).any()
    }


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What views see of what others see."""

    tracks: Tracks
    model: Reconstruction
    limit_px: Float[np.ndarray, "view"]
    """Largest error of each view."""
    config: AdjustConfig

    @cached_property
    def _by_image(self) -> tuple[Int[np.ndarray, "obs"], Int[np.ndarray, "image_plus_1"]]:
        """Rows of the observations by image, and where each image's begin."""
        order = np.argsort(self.tracks.obs_image, kind="stable")
        images = np.arange(len(view_of_image(self.model)) + 1)
        return order, np.searchsorted(self.tracks.obs_image[order], images)

    def zoom(self, view: int, others: Int[np.ndarray, "other"], unseen: ViewFit | None = None) -> ViewFit | None:
        """A view with a focal length of its own, if points made from others say that it has one; `unseen` if these see
        too little of what it shows."""
        xy, points = self._shown(view, others)
        camera, limit_px = self.model.cameras[self.model.camera_index[view]], float(self.limit_px[view])
        found = absolute_pose(camera, xy, points, limit_px)
        if found is None or found.inlier.sum() < self.config.min_observations:
            return unseen
        fit = find_zoom(camera, found.cam_from_world, xy, points, found.inlier, max_error_px=limit_px)
        changes = fit is not None and abs(focal_length_px(fit.camera) / focal_length_px(camera) - 1) >= _MIN_CHANGE
        return fit if changes else None

    def others(self, view: int, few: int) -> Int[np.ndarray, "other"]:
        """The other views without the few that show most of the same."""
        _, _, rows = self._rows_of_tracks(view)
        images = self.model.image_index
        count = np.bincount(self.tracks.obs_image[rows], minlength=int(images.max()) + 1)[images]
        count[view] = len(rows) + 1  # the view itself is first, and left out
        return np.sort(np.argsort(-count, kind="stable")[few + 1 :])

    def _shown(
        self, view: int, others: Int[np.ndarray, "other"]
    ) -> tuple[Float[np.ndarray, "obs 2"], Float[np.ndarray, "obs 3"]]:
        """Observations of a view, and the points that other views make of their tracks."""
        tracks, (mine, number, rows) = self.tracks, self._rows_of_tracks(view)
        theirs = np.isin(tracks.obs_image[rows], self.model.image_index[others])
        seen, which = select_observations(
            Tracks(obs_point=number, obs_image=tracks.obs_image[rows], obs_xy=tracks.obs_xy[rows]), theirs
        )
        bundle = ray_bundle(self.model, seen, self.limit_px)
        made = triangulate(bundle, seen.num_points, min_angle_deg=self.config.min_angle_deg)
        good = np.isfinite(made.points).all(axis=1)
        return tracks.obs_xy[mine[which[good]]], made.points[good]

    def _rows_of_tracks(
        self, view: int
    ) -> tuple[Int[np.ndarray, "obs"], Int[np.ndarray, "row"], Int[np.ndarray, "row"]]:
        """Observations of a view that are looked at, and all of their tracks with the number of the track."""
        tracks, image = self.tracks, int(self.model.image_index[view])
        order, first = self._by_image
        mine = order[first[image] : first[image + 1]]
        mine = mine[:: max(len(mine) // _MAX_OBSERVATIONS, 1)]
        low, high = (np.searchsorted(tracks.obs_point, tracks.obs_point[mine], side=side) for side in ("left", "right"))
        number = np.repeat(np.arange(len(mine)), high - low)
        rows = np.arange(len(number)) + np.repeat(low - np.concatenate([[0], np.cumsum(high - low)[:-1]]), high - low)
        return mine, number, rows


def _with_cameras(model: Reconstruction, given: MapperInput, fits: dict[int, ViewFit]) -> Zoomed:
    """Each group of focal lengths with a camera: that of the ImageSet for the largest if no other view has it, that of
    other photographs of no name if it has this focal length, or a new one."""
    poses = model.cam_from_world.copy()
    for view, fit in fits.items():
        poses[view] = fit.cam_from_world
    former = model.camera_index
    cameras, camera_index = list(model.cameras), model.camera_index.copy()
    rows, own = list(given.cameras), given.images.camera_index.copy()
    known, groups, rest = given.known_camera.tolist(), [], []
    for camera in np.unique(former[list(fits)]).tolist():
        views = np.array([view for view in fits if former[view] == camera])
        focal_px = np.array([focal_length_px(fits[view].camera) for view in views])
        order = np.argsort(focal_px, kind="stable")
        ends = np.flatnonzero(np.diff(np.log(focal_px[order])) > _SAME_GROUP) + 1
        parts = sorted(np.split(order, ends), key=len, reverse=True)
        everything = len(views) == (former == camera).sum()
        for number, part in enumerate(parts):
            mine, own_px = views[part], float(np.exp(np.log(focal_px[part]).mean()))
            lens = with_focal_length(model.cameras[camera], own_px)
            images = model.image_index[mine]
            groups.append(tuple(sorted(images.tolist())))
            rest.append(tuple(model.image_index[np.setdiff1d(np.flatnonzero(former == camera), views)].tolist()))
            if everything and number == 0:
                cameras[camera] = lens
                continue
            other = _camera_with(own_px, camera, model, given)
            if other is not None:
                camera_index[mine] = other
                own[images] = given.images.camera_index[model.image_index[former == other][0]]
                continue
            camera_index[mine] = len(cameras)
            cameras.append(lens)
            own[images] = len(rows)
            rows.append(lens)
            known.append(False)
    changed = replace(with_poses(model, poses), cameras=tuple(cameras), camera_index=camera_index)
    return Zoomed(
        model=with_cameras_of_views(changed),
        given=replace(
            given,
            images=replace(given.images, camera_index=own),
            cameras=tuple(rows),
            known_camera=np.array(known, bool),
        ),
        groups=tuple(groups),
        rest=tuple(rest),
        fits=fits,
    )


def _camera_with(focal_px: float, former: int, model: Reconstruction, given: MapperInput) -> int | None:
    """Another camera of a model with about this focal length, for pictures of the size of a former one; None: none."""
    may_be_zoomed, size = given.images.may_be_zoomed, (model.cameras[former].width, model.cameras[former].height)
    distance = {
        row: abs(float(np.log(focal_length_px(camera) / focal_px)))
        for row, camera in enumerate(model.cameras)
        if row != former and (camera.width, camera.height) == size
        if may_be_zoomed is not None and may_be_zoomed[model.image_index[model.camera_index == row]].all()
    }
    nearest = min(distance, key=lambda row: distance[row], default=None)
    return nearest if nearest is not None and distance[nearest] < _SAME_GROUP else None
