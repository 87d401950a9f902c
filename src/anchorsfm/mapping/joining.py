"""Two models of overlapping views become one: the similarity between them, from tracks that both made points of.

A track through images of both models is triangulated by each with its own cameras, so it has a point in either frame.
The similarity is found from samples of three such tracks (Fischler and Bolles 1981), refined over those that agree, and
a track agrees if the point of either model, brought into the other one's frame, projects onto what that one's images
observe. Images that both models hold are ordinary evidence: every one of their keypoints is in tracks of both
(docs/method.md, Earlier models).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.geometry.transforms import fit_similarities, fit_similarity, invert
from anchorsfm.scene.edit import moved, view_of_image, with_moved_points, with_points, with_views
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.resect import points_of_tracks
from anchorsfm.tracks.residuals import pixel_errors

MIN_AGREEING = 40
"""Fewest tracks that must agree with the similarity of two models ..."""
MIN_SHARE = 0.3
"""... and share of those that both made points of."""
_SAMPLES = 1000
_SCORED = 400
"""Tracks that samples are compared by."""
_ROUNDS = 5
_LOOSE = 3.0
"""Models are bent against each other: what agrees before they are adjusted together, in final thresholds."""
_MIN_WIDTH = 0.02
"""Second largest extent of the points that agree, as a share of the largest: on a line they leave a rotation open."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What two models have in common."""

    num_images: int
    """That both hold."""
    num_tracks: int
    """That both made a point of."""
    num_agreeing: int
    """Tracks that agree with the similarity."""
    is_on_line: bool = False
    """What agrees lies on a line, which leaves a rotation open."""
    is_contradicted: bool = False
    """Matches of the models joined by it contradict each other."""
    scale: float = 1.0
    pose: Float[np.ndarray, "3 4"] | None = None
    """A point x of the second model is at scale R x + t in the first; None: there is no such similarity."""

    @property
    def is_strong(self) -> bool:
        """Whether it is enough to join the models."""
        enough = self.num_agreeing >= max(MIN_AGREEING, MIN_SHARE * self.num_tracks)
        return self.pose is not None and enough and not self.is_on_line

    def weakness(self) -> str:
        """Why not, in numbers."""
        images = f"{self.num_images} images" if self.num_images != 1 else "1 image"
        if self.is_on_line:
            return f"the {self.num_agreeing} points that agree lie on one line"
        if self.is_contradicted:
            return (
                f"{self.num_agreeing} of {self.num_tracks} points that both saw agree with one similarity, but other "
                "matches contradict it: the models show something that only looks alike"
            )
        return (
            f"they have {images} in common and {self.num_tracks} points that both saw, of which {self.num_agreeing} "
            f"agree with one similarity, and {MIN_AGREEING} and {100 * MIN_SHARE:.0f} % are needed"
        )


def relate_models(
    first: Reconstruction, second: Reconstruction, tracks: Tracks, max_error_px: Float[np.ndarray, "image"]
) -> Relation:
    """The similarity from the second model to the first.

    Args:
        first: a model with points of the tracks.
        second: another one.
        tracks: those of the whole ImageSet, with the same coordinates as the observations of the models.
        max_error_px: final reprojection error of every image of the ImageSet, original pixels.
    """
    common = int(np.isin(first.image_index, second.image_index).sum())
    of_first, of_second = points_of_tracks(first, tracks), points_of_tracks(second, tracks)
    both = np.flatnonzero((of_first >= 0) & (of_second >= 0))
    rows_a, rows_b = _one_to_one(of_first[both], of_second[both])
    if len(rows_a) < 3:
        return Relation(num_images=common, num_tracks=len(rows_a), num_agreeing=0)
    errors = _Errors(
        first=_selected(first, rows_a), second=_selected(second, rows_b), tolerance_px=_LOOSE * max_error_px
    )
    scale, pose = _by_samples(errors)
    agrees = errors.agree(scale, pose)
    for _ in range(_ROUNDS):
        if agrees.sum() < 3:
            break
        scale, pose = fit_similarity(errors.second.points[agrees], errors.first.points[agrees])
        before, agrees = agrees, errors.agree(scale, pose)
        if (agrees == before).all():
            break
    if agrees.sum() < 3:
        return Relation(num_images=common, num_tracks=len(rows_a), num_agreeing=int(agrees.sum()))
    points = errors.first.points[agrees]
    extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return Relation(
        num_images=common,
        num_tracks=len(rows_a),
        num_agreeing=int(agrees.sum()),
        is_on_line=bool(extent[1] < _MIN_WIDTH * extent[0]),
        scale=scale,
        pose=pose,
    )


def join_models(
    first: Reconstruction,
    second: Reconstruction,
    relation: Relation,
    *,
    cameras: tuple[Camera, ...],
    camera_index: Int[np.ndarray, "image"],
) -> Reconstruction:
    """The first model with the views of the second in its frame; images of both keep the pose of the first.

    Points are those of the first: they are made anew from the tracks.

    Args:
        first: its frame, poses and intrinsics stay.
        second: the other model.
        relation: a strong one (`relate_models`).
        cameras: one per camera of the ImageSet; what neither model has intrinsics of.
        camera_index: row of `cameras` of every image.
    """
    assert relation.pose is not None
    brought = moved(second, relation.scale, relation.pose)
    lens = list(cameras)
    for view, image in enumerate(second.image_index.tolist()):
        lens[camera_index[image]] = second.cameras[second.camera_index[view]]
    new = ~np.isin(second.image_index, first.image_index)
    poses = dict(zip(second.image_index[new].tolist(), brought.cam_from_world[new], strict=True))
    return with_views(first, poses, lens, camera_index)


@dataclass(frozen=True, kw_only=True)
class _Errors:
    """Points of both models, row by row the same, with what their images observe of them."""

    first: Reconstruction
    second: Reconstruction
    tolerance_px: Float[np.ndarray, "image"]

    def agree(self, scale: float, pose: Float[np.ndarray, "3 4"]) -> Bool[np.ndarray, "track"]:
        """Rows whose points agree in both directions."""
        back = _inverse(scale, pose)
        there = _fits(self.first, _moved(self.second.points, scale, pose), self.tolerance_px)
        return there & _fits(self.second, _moved(self.first.points, *back), self.tolerance_px)


def _one_to_one(
    a: Int[np.ndarray, "track"], b: Int[np.ndarray, "track"]
) -> tuple[Int[np.ndarray, "row"], Int[np.ndarray, "row"]]:
    """Points of both models, each at most once."""
    keep = np.zeros(len(a), bool)
    keep[np.unique(a, return_index=True)[1]] = True
    a, b = a[keep], b[keep]
    first = np.sort(np.unique(b, return_index=True)[1])
    return a[first], b[first]


def _selected(model: Reconstruction, rows: Int[np.ndarray, "row"]) -> Reconstruction:
    """Some points of a model, in this order."""
    place = np.full(len(model.points), -1)
    place[rows] = np.arange(len(rows))
    of = place[model.tracks.obs_point]
    order = np.argsort(of, kind="stable")[int((of < 0).sum()) :]
    tracks = Tracks(obs_point=of[order], obs_image=model.tracks.obs_image[order], obs_xy=model.tracks.obs_xy[order])
    return with_points(model, tracks, model.points[rows])


def _fits(
    model: Reconstruction, points: Float[np.ndarray, "track 3"], tolerance_px: Float[np.ndarray, "image"]
) -> Bool[np.ndarray, "track"]:
    """Points that project onto at least half of their observations, and at least two of them."""
    error = pixel_errors(with_moved_points(model, points))
    good = error <= tolerance_px[model.tracks.obs_image]
    count = np.bincount(model.tracks.obs_point, weights=good, minlength=len(points))
    total = np.bincount(model.tracks.obs_point, minlength=len(points))
    return (count >= 2) & (2 * count >= total)


def _by_samples(errors: _Errors) -> tuple[float, Float[np.ndarray, "3 4"]]:
    """The similarity of three tracks with which most of a number of others agree, by distances in both frames.

    A distance counts in units of what a pixel of tolerance is at the point's depth; a sum of bounded squares (Torr and
    Zisserman, MLESAC) ranks samples.
    """
    generator = np.random.default_rng(0)
    source, target = errors.second.points, errors.first.points
    sample = generator.integers(len(source), size=(_SAMPLES, 3))
    sample = sample[(np.diff(np.sort(sample, axis=1), axis=1) > 0).all(axis=1)]
    scale, pose = fit_similarities(source[sample], target[sample], np.ones(sample.shape))
    usable = np.isfinite(scale) & (scale > 0) & np.isfinite(pose).all(axis=(1, 2))
    scale, pose = scale[usable], pose[usable]
    if not len(scale):
        return 1.0, np.eye(3, 4)
    scored = generator.permutation(len(source))[:_SCORED]
    unit_a = _unit(errors.first, errors.tolerance_px)[scored]
    unit_b = _unit(errors.second, errors.tolerance_px)[scored]
    apart = scale[:, None, None] * source[scored] @ np.swapaxes(pose[:, :, :3], 1, 2) + pose[:, None, :, 3]
    distance = np.linalg.norm(apart - target[scored], axis=2)
    cost = np.minimum(distance / np.maximum(unit_a, scale[:, None] * unit_b), 1.0) ** 2
    best = int(cost.sum(axis=1).argmin())
    return float(scale[best]), pose[best]


def _unit(model: Reconstruction, tolerance_px: Float[np.ndarray, "image"]) -> Float[np.ndarray, "track"]:
    """How far a point may be off, in world units: three times the tolerance at its depth, as depth is less exact than
    directions."""
    view = view_of_image(model)[model.tracks.obs_image]
    focal = np.array([focal_length_px(camera) for camera in model.cameras])[model.camera_index[view]]
    pose = model.cam_from_world[view]
    depth = np.einsum("nk,nk->n", pose[:, 2, :3], model.points[model.tracks.obs_point]) + pose[:, 2, 3]
    size = np.abs(depth) * tolerance_px[model.tracks.obs_image] / focal
    total = np.bincount(model.tracks.obs_point, weights=size, minlength=len(model.points))
    return 3 * total / np.maximum(np.bincount(model.tracks.obs_point, minlength=len(model.points)), 1)


def _moved(points: Float[np.ndarray, "p 3"], scale: float, pose: Float[np.ndarray, "3 4"]) -> np.ndarray:
    return scale * points @ pose[:, :3].T + pose[:, 3]


def _inverse(scale: float, pose: Float[np.ndarray, "3 4"]) -> tuple[float, Float[np.ndarray, "3 4"]]:
    """Of a similarity: x = (1 / s) R^T y - R^T t / s."""
    back = invert(pose)
    back[:, 3] /= scale
    return 1 / scale, back
