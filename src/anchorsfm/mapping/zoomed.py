"""Photographs of one size that do not share a focal length, with nothing that says so: they get cameras of their own.

Where only their sizes say that photographs share a camera, or that they are frames of one video, some of them may be
zoomed, cropped and enlarged, or taken with another lens of the same phone. Models that are better with a focal length
for each view (`tracks.own_focal`) have a camera for each group of focal lengths then, or for each view where these
change by and by, and are adjusted again; that counts where they fit better then.

Views whose poses stay were asked when these were found: only what was added to them is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import focal_length_px, with_focal_length
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.consistency import Change
from anchorsfm.scene.edit import view_of_image, with_cameras, with_cameras_of_views, with_poses
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.own_focal import own_focal_lengths
from anchorsfm.tracks.residuals import pixel_errors

_MIN_VIEWS = 4
"""Models with fewer do not show which of them are zoomed."""
_MIN_CHANGE = 0.02
"""Focal lengths that differ by a smaller share from the camera's are what lens and points leave open of one view."""
_SURE = 3.0
"""Deviations within which a focal length lies."""
_SAME_GROUP = 0.03
"""Focal lengths that differ by a smaller share from the next are those of one camera."""
_MANY = 4
"""More single photographs with cameras of their own are named together."""
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
    fits: dict[int, Camera]
    """Of the views that they are made of."""

    def confirmed(self, before: Reconstruction, after: Reconstruction) -> tuple[tuple[int, ...], ...]:
        """Groups that fit the adjusted model better; none if it has lost a photograph."""
        if len(after.image_index) < len(before.image_index):
            return ()
        errors = [(pixel_errors(model), model.tracks.obs_image) for model in (before, after)]
        found = []
        for group, rest in zip(self.groups, self.rest, strict=True):
            own_px = np.array([_focal_px_of(after, image) for image in group])
            other_px = _focal_px_of(after, rest[0]) if rest else _focal_px_of(before, group[0])
            was, now = (error[np.isin(image, group)] for error, image in errors)
            was_px, now_px = np.median(was), np.median(now)
            fits_better = len(now) >= _KEPT * len(was) and now_px <= _WORTH * was_px
            # a wrong focal length agrees with few observations, and these well
            fits_more = len(now) >= _MORE * len(was) and now_px <= _NO_WORSE * was_px
            if (fits_better or fits_more) and np.abs(own_px / other_px - 1).max() >= _MIN_CHANGE:
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


def find_zoomed(model: Reconstruction, given: MapperInput, config: AdjustConfig, held: Held) -> Zoomed | None:
    """Photographs of an adjusted model that have another focal length than their camera; None: none are seen.

    Args:
        model: with points.
        given: what it was made from.
        config: thresholds of the adjustment.
        held: what the adjustment has left as it was; views whose poses stay are not asked.
    """
    may_be_zoomed = given.images.may_be_zoomed
    if may_be_zoomed is None or len(model.image_index) < _MIN_VIEWS or not len(model.points):
        return None
    camera, asked = given.images.camera_index[model.image_index], may_be_zoomed[model.image_index] & ~held.pose
    asked &= ~_is_given(given)[camera] & _have_one_size(given.images.size_wh[model.image_index])
    if not asked.any():
        return None
    scale = float(np.median(given.working_scale[model.image_index]))
    started = [given.cameras[row] for row in camera]
    own = own_focal_lengths(model, given.tracks, asked, started, held, config, working_scale=scale)
    if own is None:
        return None
    fits: dict[int, Camera] = {}
    cameras, log_px = list(model.cameras), _settled(np.log(own.focal_px), own.deviation, asked)
    for row in np.unique(model.camera_index[asked]).tolist():
        mine, others = asked & (model.camera_index == row), ~asked & (model.camera_index == row)
        usual = log_px[others][0] if others.any() else _most(log_px[mine])
        for view in _differing(log_px, mine, usual).tolist():
            lens = own.model.cameras[own.model.camera_index[view]]
            fits[view] = with_focal_length(lens, float(np.exp(log_px[view])))
        if not others.any():
            lens = own.model.cameras[own.model.camera_index[np.flatnonzero(mine)[0]]]
            cameras[row] = with_focal_length(lens, float(np.exp(usual)))
    if not fits:
        return None
    return _with_cameras(with_cameras(with_poses(model, own.model.cam_from_world), cameras), given, fits)


def _differing(
    log_px: Float[np.ndarray, "view"], mine: Bool[np.ndarray, "view"], usual: float
) -> Int[np.ndarray, "differing"]:
    """Views of one camera whose focal length is not the usual one; all that it changes by and by through, for there no
    view is usual."""
    differs = mine & (np.abs(log_px - usual) > np.log1p(_MIN_CHANGE))
    order = np.flatnonzero(mine)[np.argsort(log_px[mine], kind="stable")]
    for part in np.split(order, _ends(log_px[order])):
        if log_px[part].min() <= usual <= log_px[part].max() and _changes(log_px[part]):
            differs[part] = True
    return np.flatnonzero(differs)


def _settled(
    log_px: Float[np.ndarray, "view"], deviation: Float[np.ndarray, "view"], asked: Bool[np.ndarray, "view"]
) -> Float[np.ndarray, "view"]:
    """Focal lengths, those that are not sure as the nearest sure one, if that is near enough."""
    allowed = np.maximum(_SURE * deviation, _SAME_GROUP)
    doubtful = asked & (_SURE * deviation > _SAME_GROUP)
    sure = log_px[~doubtful]
    if not len(sure):
        return log_px
    nearest = sure[np.abs(log_px[:, None] - sure).argmin(axis=1)]
    return np.where(doubtful & (np.abs(nearest - log_px) <= allowed), nearest, log_px)


def _most(log_px: Float[np.ndarray, "view"]) -> float:
    """What most focal lengths are like."""
    order = np.sort(log_px)
    count = np.searchsorted(order, order + _SAME_GROUP, side="right") - np.arange(len(order))
    first = int(count.argmax())
    return float(np.median(order[first : first + count[first]]))


def zoom_changes(before: Reconstruction, after: Reconstruction, given: MapperInput, own: MapperInput) -> list[Change]:
    """What the photographs of a model have got that no longer have the camera of the others.

    Args:
        before, after: the model without and with further cameras.
        given, own: what they were made from.
    """
    rows, former_rows = (of.images.camera_index[after.image_index] for of in (own, given))
    changes: list[Change] = []
    single: list[tuple[int, float, float]] = []
    for former, row in np.unique(np.stack([former_rows, rows], axis=1), axis=0).tolist():
        images = after.image_index[(rows == row) & (former_rows == former)]
        whole = int((former_rows == former).sum())
        px, former_px = (_focal_px_of(model, int(images[0])) for model in (after, before))
        if row == former and (2 * len(images) > whole or abs(px / former_px - 1) < _MIN_CHANGE):
            continue
        if len(images) == 1:
            single.append((int(images[0]), px, former_px))
            continue
        text = f"a camera of their own: a focal length of {px:.0f} px, not {former_px:.0f} px"
        changes.append(Change(images=tuple(images.tolist()), what=text))
    if len(single) > _MANY:
        focal_px = [own_px for _, own_px, _ in single]
        span = f"from {min(focal_px):.0f} to {max(focal_px):.0f} px"
        text = f"cameras of their own: focal lengths that change by and by, {span}"
        return [*changes, Change(images=tuple(image for image, _, _ in single), what=text)]
    for image, own_px, former_px in single:
        text = f"a camera of their own: a focal length of {own_px:.0f} px, not {former_px:.0f} px"
        changes.append(Change(images=(image,), what=text))
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


def _with_cameras(model: Reconstruction, given: MapperInput, fits: dict[int, Camera]) -> Zoomed:
    """Each group of focal lengths with a camera: that of the ImageSet for the largest if no other view has it, that of
    other photographs of no name if it has this focal length, or a new one."""
    former = model.camera_index
    cameras, camera_index = list(model.cameras), model.camera_index.copy()
    rows, own = list(given.cameras), given.images.camera_index.copy()
    known, groups, rest = given.known_camera.tolist(), [], []
    for camera in np.unique(former[list(fits)]).tolist():
        views = np.array([view for view in fits if former[view] == camera])
        focal_px = np.array([focal_length_px(fits[view]) for view in views])
        order = np.argsort(focal_px, kind="stable")
        parts = sorted(np.split(order, _ends(np.log(focal_px[order]))), key=len, reverse=True)
        everything = len(views) == (former == camera).sum()
        for part in parts:
            groups.append(tuple(sorted(model.image_index[views[part]].tolist())))
            rest.append(tuple(model.image_index[np.setdiff1d(np.flatnonzero(former == camera), views)].tolist()))
        for number, part in enumerate(_of_one_camera(parts, focal_px)):
            mine, own_px = views[part], float(np.exp(np.log(focal_px[part]).mean()))
            lens = with_focal_length(fits[int(mine[0])], own_px)
            images = model.image_index[mine]
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
    changed = replace(model, cameras=tuple(cameras), camera_index=camera_index)
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


def _of_one_camera(
    parts: list[Int[np.ndarray, "_"]], focal_px: Float[np.ndarray, "view"]
) -> Iterator[Int[np.ndarray, "_"]]:
    """The parts, those with a focal length that changes by and by in single views."""
    for part in parts:
        if _changes(np.log(focal_px[part])):
            yield from np.split(part, len(part))
        else:
            yield part


def _changes(log_px: Float[np.ndarray, "view"]) -> bool:
    """Whether focal lengths that go on from one to the next are not those of one camera."""
    return bool(np.ptp(log_px) > 2 * _SAME_GROUP)


def _ends(log_px: Float[np.ndarray, "view"]) -> Int[np.ndarray, "end"]:
    """Where focal lengths in their order do not go on."""
    return np.flatnonzero(np.diff(log_px) > _SAME_GROUP) + 1


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
