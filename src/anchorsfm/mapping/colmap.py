"""COLMAP's mappers on our matches (docs/method.md, Mappers)."""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from anchorsfm.colmap.database import PairMatches, estimate_geometries, number_keypoints, write_database
from anchorsfm.colmap.mappers import MapperOptions, map_global, map_incremental
from anchorsfm.features.config import MAX_EPIPOLAR_ERROR_PX
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings, start_from_model
from anchorsfm.scene.progress import Progress

_RUNS = {"incremental": map_incremental, "global": map_global}


def map_with_colmap(
    kind: Literal["incremental", "global"], given: MapperInput, settings: MapperSettings, progress: Progress
) -> Mapped:
    """Models by one of COLMAP's mappers, on the database of the settings or one that is made for it.

    Raises StorageError if the database cannot be written.
    """
    options = MapperOptions(
        working_scale=float(np.median(given.working_scale)), seed=settings.seed, num_threads=settings.num_threads
    )
    with tempfile.TemporaryDirectory(prefix="anchorsfm-") as scratch:
        database = settings.database
        if database is None:
            database = Path(scratch) / "database.db"
            save_database(given, database, seed=settings.seed)
        keypoints = _numbered(given).keypoints
        models = _RUNS[kind](database, keypoints, options, constant_camera=given.known_camera, progress=progress)
    placed = {int(image) for model in models for image in model.image_index}
    reason = f"COLMAP's {kind} mapper could not register it"
    missing = {image: reason for image in range(given.images.num_images) if image not in placed}
    return Mapped(starts=tuple(start_from_model(model, given) for model in models), reasons=missing)


def save_database(given: MapperInput, path: Path, *, seed: int) -> None:
    """Write keypoints, matches and verified geometries as a COLMAP database.

    Raises StorageError if the file cannot be written.
    """
    numbered = _numbered(given)
    reliable = np.ones(len(given.cameras), bool)
    geometries = estimate_geometries(
        given.cameras,
        given.images.camera_index,
        numbered,
        has_focal_prior=reliable,
        max_error_px=MAX_EPIPOLAR_ERROR_PX * given.working_scale,
        seed=seed,
    )
    write_database(
        path,
        given.images.names,
        given.cameras,
        given.images.camera_index,
        numbered,
        geometries,
        has_focal_prior=reliable,
    )


def _numbered(given: MapperInput) -> PairMatches:
    matches = given.matches
    return number_keypoints(given.images.num_images, matches.image_i, matches.image_j, matches.xy_i, matches.xy_j)
