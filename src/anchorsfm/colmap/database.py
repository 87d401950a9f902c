"""Matches as a COLMAP database, which COLMAP's own mappers go on from.

Keypoints of an image are the distinct coordinates at which its matches end, in the order of (x, y): the same physical
point of an image is one keypoint in every pair. Identifiers: camera_id = row of the cameras + 1, image_id = index of
the image + 1; every camera is a rig of its own and every image a frame of its own, as COLMAP 4 wants it.
COLMAP keeps keypoints in single precision; `PairMatches.keypoints` has them exactly.

Two-view geometry: for x_i, x_j on the planes z = 1 of two cameras, x_j^T E x_i = 0 with E = [t]x R and
j_from_i = [R | t]; in pixels of cameras with calibration matrices K, F = K_j^-T E K_i^-1, and for a camera that only
turns x_j ~ H x_i with H = K_j R K_i^-1 (Hartley and Zisserman, "Multiple View Geometry", 9.6 and 8.4).
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.convert import to_pycolmap_camera
from anchorsfm.colmap.quiet import silent
from anchorsfm.geometry.rows import distinct_rows
from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.store import storage_error
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.reconstruction import Camera


@dataclass(frozen=True, kw_only=True)
class PairMatches:
    """Matches of pairs of images between numbered keypoints."""

    keypoints: tuple[Float[np.ndarray, "_ 2"], ...]
    """Of every image, in original pixels; no rows where nothing was matched."""
    pair: Int[np.ndarray, "pair 2"]
    """Images i < j of every pair that has matches, sorted."""
    start: Int[np.ndarray, "pair_and_one"]
    """Matches of pair k are rows start[k] .. start[k + 1] of `keypoint`."""
    keypoint: Int[np.ndarray, "match 2"]
    """Keypoint of i and of j."""

    def of_pair(self, k: int) -> Int[np.ndarray, "match 2"]:
        """Keypoints of i and of j that are matched in pair k."""
        return self.keypoint[self.start[k] : self.start[k + 1]]


class GeometryKind(StrEnum):
    """What relates two images."""

    CALIBRATED = "calibrated"
    """An essential matrix: both focal lengths are known."""
    UNCALIBRATED = "uncalibrated"
    """A fundamental matrix."""
    PLANAR = "planar"
    """A homography, because the scene is a plane."""
    PANORAMIC = "panoramic"
    """A homography, because the camera only turned."""
    PLANAR_OR_PANORAMIC = "planar or panoramic"
    """A homography, for either reason."""
    UNRELATED = "unrelated"
    """Nothing that enough matches agree with."""


_CONFIGURATIONS = {
    GeometryKind.CALIBRATED: "CALIBRATED",
    GeometryKind.UNCALIBRATED: "UNCALIBRATED",
    GeometryKind.PLANAR: "PLANAR",
    GeometryKind.PANORAMIC: "PANORAMIC",
    GeometryKind.PLANAR_OR_PANORAMIC: "PLANAR_OR_PANORAMIC",
}


@dataclass(frozen=True, kw_only=True)
class TwoViewGeometry:
    """What is known about one pair. Matrices that the kind does not need may be left out."""

    kind: GeometryKind
    inlier: Bool[np.ndarray, "match"]
    """Which of the pair's matches agree with it."""
    j_from_i: Float[np.ndarray, "3 4"] | None = None
    """Relative pose; the length of the baseline means nothing."""
    essential: Float[np.ndarray, "3 3"] | None = None
    fundamental: Float[np.ndarray, "3 3"] | None = None
    homography: Float[np.ndarray, "3 3"] | None = None
    angle_deg: float = 0.0
    """Median triangulation angle of the inliers; 0 where unknown."""


def number_keypoints(
    num_images: int,
    image_i: Int[np.ndarray, "match"],
    image_j: Int[np.ndarray, "match"],
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
) -> PairMatches:
    """Matches given by coordinates (original pixels) as matches between numbered keypoints, each once."""
    num_matches = len(image_i)
    image = np.concatenate([image_i, image_j]).astype(np.int64)
    rows = np.column_stack([image, np.concatenate([xy_i, xy_j])]).reshape(-1, 3)
    distinct, number = distinct_rows(rows)
    first = np.searchsorted(distinct[:, 0], np.arange(num_images + 1))
    number = number - first[image]
    swap = (image_i > image_j)[:, None]
    ends = np.column_stack([image_i, image_j, number[:num_matches], number[num_matches:]]).astype(np.int64)
    ends = np.unique(np.where(swap, ends[:, [1, 0, 3, 2]], ends).reshape(-1, 4), axis=0)
    pair, start = np.unique(ends[:, :2], axis=0, return_index=True)
    return PairMatches(
        keypoints=tuple(distinct[first[k] : first[k + 1], 1:] for k in range(num_images)),
        pair=pair,
        start=np.append(start, len(ends)).astype(np.int64),
        keypoint=ends[:, 2:],
    )


def estimate_geometries(
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "image"],
    matches: PairMatches,
    *,
    has_focal_prior: Bool[np.ndarray, "camera"],
    max_error_px: Float[np.ndarray, "image"],
    seed: int = 0,
) -> tuple[TwoViewGeometry, ...]:
    """Robust two-view geometry of every pair by COLMAP, which also tells planes and turning cameras from real depth.

    Args:
        cameras: all of them.
        camera_index: row of `cameras` of every image.
        matches: what to verify.
        has_focal_prior: which focal lengths can be relied on; a pair of two such cameras becomes calibrated.
        max_error_px: largest distance from the epipolar line or transferred point of an inlier, original pixels.
        seed: of the random samples; equal seeds give equal results.
    """
    options = pycolmap.TwoViewGeometryOptions()
    options.compute_relative_pose = True
    options.detect_watermark = False
    options.ransac.random_seed = seed
    entries = _database_cameras(cameras, has_focal_prior)
    found = []
    for k, (i, j) in enumerate(matches.pair.tolist()):
        options.ransac.max_error = float(np.sqrt(max_error_px[i] * max_error_px[j]))
        rows = matches.of_pair(k)
        geometry = pycolmap.estimate_two_view_geometry(
            entries[camera_index[i]],
            matches.keypoints[i],
            entries[camera_index[j]],
            matches.keypoints[j],
            rows.astype(np.uint32),
            options,
        )
        found.append(_from_pycolmap_geometry(geometry, rows))
    return tuple(found)


def write_database(
    path: Path,
    names: Sequence[str],
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "image"],
    matches: PairMatches,
    geometries: Sequence[TwoViewGeometry],
    *,
    has_focal_prior: Bool[np.ndarray, "camera"],
) -> None:
    """Write a database that appears complete or not at all, replacing an earlier file.

    Args:
        path: file to write.
        names: of all images.
        cameras: all of them.
        camera_index: row of `cameras` of every image.
        matches: keypoints and matches.
        geometries: one per pair of `matches`; its inliers are the verified matches.
        has_focal_prior: which focal lengths come from EXIF, the user or a trusted estimate.

    Raises:
        StorageError: the file cannot be written.
    """
    assert len(geometries) == len(matches.pair)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=TEMPORARY_PREFIX))
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        temporary = folder / "database.db"
        with silent():
            _fill(temporary, names, _database_cameras(cameras, has_focal_prior), camera_index, matches, geometries)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    except (RuntimeError, ValueError) as error:  # what pycolmap makes of SQLite's errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise StorageError(
            f"the database {path} could not be written, probably because the disk is full ({reason}): "
            "free some space and run the same command again, it continues"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(
    path: Path,
    names: Sequence[str],
    cameras: Sequence[pycolmap.Camera],
    camera_index: Int[np.ndarray, "image"],
    matches: PairMatches,
    geometries: Sequence[TwoViewGeometry],
) -> None:
    database = pycolmap.Database.open(path)
    try:
        with pycolmap.DatabaseTransaction(database):
            for camera in cameras:
                database.write_camera(camera, use_camera_id=True)
                rig = pycolmap.Rig()
                rig.rig_id = camera.camera_id
                rig.add_ref_sensor(camera.sensor_id)
                database.write_rig(rig, use_rig_id=True)
            for index, (name, camera) in enumerate(zip(names, camera_index.tolist(), strict=True)):
                _add_image(database, index, name, camera + 1, matches.keypoints[index])
            for k, ((i, j), geometry) in enumerate(zip(matches.pair.tolist(), geometries, strict=True)):
                rows = matches.of_pair(k)
                database.write_matches(i + 1, j + 1, rows.astype(np.uint32))
                database.write_two_view_geometry(i + 1, j + 1, _to_pycolmap_geometry(geometry, rows))
    finally:
        database.close()


def _add_image(
    database: pycolmap.Database, index: int, name: str, camera_id: int, keypoints: Float[np.ndarray, "keypoint 2"]
) -> None:
    image = pycolmap.Image(name=name, camera_id=camera_id, image_id=index + 1)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame()
    frame.frame_id, frame.rig_id = index + 1, camera_id
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(index + 1, keypoints.astype(np.float32).reshape(-1, 2))


def _database_cameras(
    cameras: Sequence[Camera], has_focal_prior: Bool[np.ndarray, "camera"]
) -> tuple[pycolmap.Camera, ...]:
    entries = tuple(to_pycolmap_camera(camera, row + 1) for row, camera in enumerate(cameras))
    for entry, known in zip(entries, has_focal_prior.tolist(), strict=True):
        entry.has_prior_focal_length = known
    return entries


def _to_pycolmap_geometry(geometry: TwoViewGeometry, matches: Int[np.ndarray, "match 2"]) -> pycolmap.TwoViewGeometry:
    entry = pycolmap.TwoViewGeometry()
    if geometry.kind is GeometryKind.UNRELATED:
        entry.config = pycolmap.TwoViewGeometryConfiguration.DEGENERATE
        return entry
    entry.config = getattr(pycolmap.TwoViewGeometryConfiguration, _CONFIGURATIONS[geometry.kind])
    entry.inlier_matches = matches[geometry.inlier].astype(np.uint32)
    entry.tri_angle = float(np.radians(geometry.angle_deg))
    if geometry.j_from_i is not None:
        rotation = pycolmap.Rotation3d(geometry.j_from_i[:, :3])
        entry.cam2_from_cam1 = pycolmap.Rigid3d(rotation, geometry.j_from_i[:, 3])
    if geometry.essential is not None:
        entry.E = geometry.essential
    if geometry.fundamental is not None:
        entry.F = geometry.fundamental
    if geometry.homography is not None:
        entry.H = geometry.homography
    return entry


def _from_pycolmap_geometry(geometry: pycolmap.TwoViewGeometry, matches: Int[np.ndarray, "match 2"]) -> TwoViewGeometry:
    kinds = {name: kind for kind, name in _CONFIGURATIONS.items()}
    name = pycolmap.TwoViewGeometryConfiguration(geometry.config).name
    kind = kinds.get(name, GeometryKind.UNRELATED)
    if kind is GeometryKind.UNRELATED:
        return TwoViewGeometry(kind=kind, inlier=np.zeros(len(matches), bool))
    width = int(matches[:, 1].max(initial=0)) + 1  # makes one number of the two of a match
    inliers = np.asarray(geometry.inlier_matches, np.int64).reshape(-1, 2)
    pose = geometry.cam2_from_cam1
    return TwoViewGeometry(
        kind=kind,
        inlier=np.isin(matches[:, 0] * width + matches[:, 1], inliers[:, 0] * width + inliers[:, 1]),
        j_from_i=None if pose is None else np.asarray(pose.matrix(), np.float64),
        essential=geometry.E,
        fundamental=geometry.F,
        homography=geometry.H,
        angle_deg=max(float(np.degrees(geometry.tri_angle)), 0.0),
    )
