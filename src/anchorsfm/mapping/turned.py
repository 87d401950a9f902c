"""Photographs that are stored turned, with nothing that says so: their camera is that of the others, turned.

A picture that somebody turned by 90 degrees before its EXIF data got lost has another size, so another camera; one that
was turned by 180 degrees has its principal point on the wrong side. Where the poses of a model show that pictures are
turned in their plane against most others, and turning them back gives them the size of these, it is tried out whether
they were taken by one camera: cameras and poses are adjusted to a sample of the tracks as the pictures are stored, and
as they are when turned back. A camera that somebody held turned has its principal point where it was: then the first
fits better. Everything that follows sees the turned pictures and one camera; finished models are turned to how
pictures are stored, where one camera becomes one for each turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import BundleOptions, adjust
from anchorsfm.colmap.cameras import turned_camera
from anchorsfm.geometry.quarter_turns import turned_poses, turned_size_wh, turned_xy
from anchorsfm.mapping.base import MapperInput, Start
from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.adjust import LOOSE, AdjustResult
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.residuals import loss_scale_px, pixel_errors

MAX_TRACKS = 2000
"""Tracks that are tried with."""
MIN_VIEWS = 4
"""Fewer do not show which of them are turned."""
MAX_OFF_DEG = 30.0
"""A picture counts as turned by quarter turns only if up is within this angle of where it would be then."""
MIN_IN_PLANE = 0.3
"""Sine of the angle between up and the viewing direction, from which on up is seen in a picture."""
MIN_GAIN = 0.005
"""Share by which the residuals must be smaller for pictures of one size to count as turned. Where the turned ones have
another size, they may be larger by this: there is one camera less to fit."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How pictures are turned, and the cameras of the turned ones."""

    turns: Int[np.ndarray, "image"]
    """Quarter turns, counter-clockwise, that turn each picture back."""
    camera_index: Int[np.ndarray, "image"]
    """Row of the camera of each turned picture: one of the former rows."""
    size_wh: Int[np.ndarray, "image 2"]
    """As stored."""

    @property
    def former_row(self) -> Int[np.ndarray, "camera"]:
        """The former row of each camera that is left."""
        return np.unique(self.camera_index)

    def images(self, images: ImageSet) -> ImageSet:
        """The photographs as they are turned back."""
        return replace(
            images,
            size_wh=turned_size_wh(images.size_wh, self.turns),
            camera_index=np.searchsorted(self.former_row, self.camera_index),
            quarter_turns=self.turns,
        )

    def tracks(self, tracks: Tracks, *, back: bool = False) -> Tracks:
        """Observations in the turned pictures; `back`: from there to the stored ones."""
        return replace(tracks, obs_xy=self._xy(tracks.obs_xy, tracks.obs_image, back=back))

    def matches(self, matches: KeypointMatches) -> KeypointMatches:
        """Matches in the turned pictures."""
        return replace(
            matches,
            xy_i=self._xy(matches.xy_i, matches.image_i),
            xy_j=self._xy(matches.xy_j, matches.image_j),
        )

    def given(self, given: MapperInput) -> MapperInput:
        """What the models are made from."""
        return replace(
            given,
            images=self.images(given.images),
            cameras=tuple(self._camera_of(given.cameras, given.images.camera_index)),
            known_camera=given.known_camera[self.former_row],
            matches=self.matches(given.matches),
            free=None if given.free is None else self.matches(given.free),
            tracks=self.tracks(given.tracks),
            coarse=self.coarse(given.coarse),
        )

    def coarse(self, coarse: CoarseKeypoints | None) -> CoarseKeypoints | None:
        """The same keypoints in the turned pictures."""
        if coarse is None:
            return None
        return CoarseKeypoints(xy={image: self._xy(xy, np.full(len(xy), image)) for image, xy in coarse.xy.items()})

    def start(self, start: Start, given: MapperInput) -> Start:
        """A model to start from, with a camera for all pictures that share one now."""
        model = start.model
        turns = self.turns[model.image_index]
        rows, camera_index = np.unique(self.camera_index[model.image_index], return_inverse=True)
        cameras, held = [], []
        for row in rows:
            views = np.flatnonzero(self.camera_index[model.image_index] == row)
            former = given.images.camera_index[model.image_index[views]]
            view = int(views[np.lexsort((turns[views] != 0, former != row))[0]])
            cameras.append(turned_camera(model.cameras[model.camera_index[view]], int(turns[view])))
            held.append(bool(start.held.camera[model.camera_index[view]]))
        turned = replace(
            model,
            cam_from_world=turned_poses(model.cam_from_world, turns),
            cameras=tuple(cameras),
            camera_index=camera_index.reshape(-1).astype(np.int64),
            tracks=self.tracks(model.tracks),
        )
        return Start(model=turned, held=replace(start.held, camera=np.array(held, bool)))

    def back(self, result: AdjustResult) -> AdjustResult:
        """A finished model of the turned pictures as one of the stored ones."""
        model = result.model
        turns = self.turns[model.image_index]
        kinds, camera_index = np.unique(np.stack([model.camera_index, turns]), axis=1, return_inverse=True)
        stored = replace(
            model,
            cam_from_world=turned_poses(model.cam_from_world, -turns),
            cameras=tuple(turned_camera(model.cameras[row], -turn) for row, turn in kinds.T.tolist()),
            camera_index=camera_index.reshape(-1).astype(np.int64),
            tracks=self.tracks(model.tracks, back=True),
        )
        return replace(
            result,
            model=stored,
            held=replace(result.held, camera=result.held.camera[kinds[0]]),
            lenses=tuple(result.lenses[row] for row in kinds[0]) if result.lenses else (),
        )

    def _xy(
        self, xy: Float[np.ndarray, "point 2"], image: Int[np.ndarray, "point"], *, back: bool = False
    ) -> Float[np.ndarray, "point 2"]:
        turns, size_wh = self.turns, self.size_wh
        if back:
            turns, size_wh = -turns, turned_size_wh(size_wh, turns)
        moved = turns[image] % 4 != 0
        out = xy.copy()
        out[moved] = turned_xy(xy[moved], size_wh[image[moved]], turns[image[moved]])
        return out

    def _camera_of(self, cameras: Sequence[Camera], former: Int[np.ndarray, "image"]) -> list[Camera]:
        out = []
        for row in self.former_row:
            mine = np.flatnonzero(self.camera_index == row)
            image = int(mine[np.lexsort((self.turns[mine] != 0, former[mine] != row))[0]])
            out.append(turned_camera(cameras[former[image]], int(self.turns[image])))
        return out


def find_turns(start: Start, given: MapperInput, config: AdjustConfig) -> Turns | None:
    """How pictures of a model are stored turned; None: they are not, or nothing shows it.

    Args:
        start: poses of as many images as there are.
        given: tracks and photographs.
        config: thresholds of the adjustment.
    """
    candidates = _candidates(start, given)
    if not candidates:
        return None
    rough = _rough(start, given, config)
    if rough is None:
        return None
    options = _options(rough.model, given, config)
    stored = _misfit(rough, options, config)
    best, least = None, np.inf
    for turns in candidates:
        misfit = _misfit(turns.start(rough, given), options, config)
        merges = len(turns.former_row) < given.images.num_cameras
        limit = stored * (1 + MIN_GAIN if merges else 1 - MIN_GAIN)
        if misfit < min(limit, least):
            best, least = turns, misfit
    return best


def in_plane_turns(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Int[np.ndarray, "view"]:
    """Quarter turns that turn each picture so that up is up in all, 0 for those that do not show it.

    What most pictures agree on is up: the direction in the world to which one of the four sides of every picture points
    as closely as possible.
    """
    sides = _sides(cam_from_world)
    best, most = sides[0, 0], -np.inf
    for first in sides[:: max(len(sides) // 32, 1), 0]:
        down = first
        for _ in range(5):
            chosen = np.argmax(sides @ down, axis=1)
            down = sides[np.arange(len(sides)), chosen].sum(axis=0)
            down = down / max(float(np.linalg.norm(down)), 1e-12)
        score = float((sides @ down).max(axis=1).sum())
        if score > most + 1e-9:
            best, most = down, score
    along = sides @ best
    turns = along.argmax(axis=1)
    in_plane = np.hypot(along[:, 0], along[:, 1])
    clear = (in_plane > MIN_IN_PLANE) & (along.max(axis=1) > np.cos(np.deg2rad(MAX_OFF_DEG)) * in_plane)
    turns = np.where(clear, turns, 0)
    usual = int(np.bincount(turns[clear], minlength=4).argmax()) if clear.any() else 0
    return np.where(clear, (turns - usual) % 4, 0).astype(np.int64)


def _sides(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Float[np.ndarray, "view 4 3"]:
    """Where down points in the world after 0 .. 3 quarter turns of each picture."""
    x, y = cam_from_world[:, 0, :3], cam_from_world[:, 1, :3]
    return np.stack([y, -x, -y, x], axis=1)


def _candidates(start: Start, given: MapperInput) -> list[Turns]:
    """Turns that may be: all that are seen, and, if pictures of another size are among them, these alone."""
    images, seen = given.images, start.model.image_index
    if images.is_unnamed is None or len(seen) < MIN_VIEWS:
        return []
    may = images.is_unnamed & ~given.known_camera[images.camera_index]
    may &= np.isin(np.arange(images.num_images), seen)
    turns = np.zeros(images.num_images, np.int64)
    turns[seen] = in_plane_turns(start.model.cam_from_world)
    turns[~may] = 0
    every = _merged(images, turns, may)
    if every is None:
        return []
    odd = _merged(images, np.where(every.turns % 2 == 1, every.turns, 0), may)
    if odd is None or np.array_equal(odd.turns, every.turns):
        return [every]
    return [every, odd]


def _merged(images: ImageSet, turns: Int[np.ndarray, "image"], may: Bool[np.ndarray, "image"]) -> Turns | None:
    """Turns of pictures that get the size of most others by it, and these cameras joined; None if there are none.

    Pictures of one size that have several cameras are known to be of several: they stay as they are.
    """
    size_wh, camera = images.size_wh, images.camera_index.copy()
    turned = turned_size_wh(size_wh, turns)
    kept = np.zeros_like(turns)
    for sides in np.unique(np.sort(size_wh[may], axis=1), axis=0):
        mine = may & (np.sort(size_wh, axis=1) == sides).all(axis=1)
        sizes, count = np.unique(turned[mine], axis=0, return_counts=True)
        usual = sizes[count.argmax()]
        back = mine & (turns != 0) & (turned == usual).all(axis=1)
        stored = mine & (turns == 0) & (size_wh == usual).all(axis=1)
        if not back.any() or not stored.any() or len(np.unique(camera[stored])) > 1:
            continue
        if any(len(np.unique(camera[back & (size_wh == size).all(axis=1)])) > 1 for size in (sides, sides[::-1])):
            continue
        if ((turns % 2 == 0) & back).any() and (camera[back & (turns % 2 == 0)] != camera[stored][0]).any():
            continue
        kept[back] = turns[back]
        camera[back] = camera[stored][0]
    if not kept.any():
        return None
    return Turns(turns=kept, camera_index=camera, size_wh=size_wh)


def _rough(start: Start, given: MapperInput, config: AdjustConfig) -> Start | None:
    """The start with points of some tracks, adjusted."""
    tracks = given.tracks
    of_model = np.isin(tracks.obs_image, start.model.image_index)
    mine, _ = select_observations(tracks, of_model, min_length=3)
    stride = -(-mine.num_points // MAX_TRACKS)
    if stride < 1:
        return None
    sample, _ = select_observations(mine, mine.obs_point % stride == 0)
    model = start.model
    for share in (config.first_error, config.second_error):
        long_side_px = np.array([max(model.cameras[c].width, model.cameras[c].height) for c in model.camera_index])
        model = triangulate_model(
            model, sample, max_error_px=share * long_side_px, min_angle_deg=config.min_angle_deg, keep_all=True
        )
        if not len(model.points):
            return None
        model, _ = adjust(model, _options(model, given, config), start.held)
    return Start(model=model, held=start.held)


def _misfit(start: Start, options: BundleOptions, config: AdjustConfig) -> float:
    """Mean of log(1 + (e / s)^2) over all observations, with principal points free where enough images share them."""
    model, held = start.model, start.held
    count = np.bincount(model.camera_index, minlength=len(model.cameras))
    fixed = held.camera | (count < config.principal_point_min_images)
    for _ in range(2):
        model, _ = adjust(model, options, held)
        if not fixed.all():
            model, _ = adjust(model, replace(options, refine_principal_point=True), replace(held, camera=fixed))
    error = np.minimum(pixel_errors(model), 1e6)
    return float(np.log1p((error / options.loss_scale_px) ** 2).mean())


def _options(model: Reconstruction, given: MapperInput, config: AdjustConfig) -> BundleOptions:
    return BundleOptions(
        loss_scale_px=loss_scale_px(model, float(np.median(given.working_scale))),
        refine_focal=config.refine_focal,
        max_iterations=config.max_iterations,
        function_tolerance=LOOSE,
        num_threads=1,
    )
