"""First poses from matches alone: the mappers beside the global alignment (docs/method.md, Mappers)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.database import PairMatches, estimate_geometries, number_keypoints, write_database
from anchorsfm.colmap.mappers import MapperOptions, map_global, map_incremental
from anchorsfm.mapping.config import MapperName
from anchorsfm.mapping.incremental import FromScratchConfig, map_tracks
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches

MAX_EPIPOLAR_ERROR = 1.5
"""Largest distance of a verified match from the geometry of its pair, in working pixels."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Models without a common image, the largest first, and why other images are in none."""

    models: tuple[Reconstruction, ...]
    reasons: dict[int, str]

    @staticmethod
    def nothing() -> "Mapped":
        return Mapped(models=(), reasons={})


@dataclass(frozen=True, kw_only=True)
class MapperInput:
    """What the mappers work on."""

    images: ImageSet
    cameras: tuple[Camera, ...]
    """One per camera of the ImageSet: where the intrinsics start."""
    given: Bool[np.ndarray, "camera"]
    """Cameras whose intrinsics are known and stay."""
    matches: KeypointMatches
    tracks: Tracks
    working_scale: Float[np.ndarray, "image"]
    """Original pixels per pixel of the images that keypoints were found on."""


def map_images(
    mapper: MapperName, given: MapperInput, database: Path, *, seed: int, num_threads: int, progress: Progress = SILENT
) -> Mapped:
    """Models by one of the mappers; those of COLMAP work on `database`, as `save_database` wrote it."""
    if mapper == "tracks":
        result = map_tracks(
            given.tracks,
            given.cameras,
            given.images.camera_index,
            FromScratchConfig(num_threads=num_threads),
            working_scale=given.working_scale,
            known_camera=given.given,
            progress=progress,
        )
        return Mapped(models=result.models, reasons=result.unregistered)
    options = MapperOptions(working_scale=float(np.median(given.working_scale)), seed=seed, num_threads=num_threads)
    run = map_incremental if mapper == "incremental" else map_global
    keypoints = _numbered(given).keypoints
    models = run(database, keypoints, options, constant_camera=given.given, progress=progress)
    placed = {int(image) for model in models for image in model.image}
    reason = f"COLMAP's {mapper} mapper could not register it"
    missing = {image: reason for image in range(given.images.num_images) if image not in placed}
    return Mapped(models=tuple(models), reasons=missing)


def save_database(given: MapperInput, path: Path, *, seed: int) -> None:
    """Write keypoints, matches and verified geometries as a COLMAP database.

    Raises StorageError if the file cannot be written.
    """
    numbered = _numbered(given)
    reliable = np.ones(len(given.cameras), bool)
    geometries = estimate_geometries(
        given.images,
        given.cameras,
        numbered,
        has_focal_prior=reliable,
        max_error_px=MAX_EPIPOLAR_ERROR * given.working_scale,
        seed=seed,
    )
    write_database(path, given.images, given.cameras, numbered, geometries, has_focal_prior=reliable)


def _numbered(given: MapperInput) -> PairMatches:
    matches = given.matches
    return number_keypoints(given.images.num_images, matches.image_i, matches.image_j, matches.xy_i, matches.xy_j)
