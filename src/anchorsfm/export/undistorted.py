"""An undistorted copy of a model with its photographs, as trainers of radiance fields read it.

    undistorted/images/<flat name>        upright, no orientation tag
    undistorted/masks/<stem>.png          where there is something to ignore (black)
    undistorted/sparse/0/*.bin            COLMAP model with PINHOLE cameras
    undistorted/photographs.json          which copy was made from which photograph

The layout is that of the original implementation of 3D Gaussian splatting (images, sparse/0, names without folders,
PINHOLE, principal point in the middle of the picture), of gsplat's examples and of nerfstudio's COLMAP parser. The last
looks for a mask under the image's name with `.png` in place of its extension when given `--masks-path masks`, and for
the model with `--colmap-path sparse/0`. The model is written last: a copy with a model is complete.

Observations keep their points; those whose pixel has no ray are left out, those that the cuts put beyond the border of
the picture stay, as in COLMAP's own undistorter.
"""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from anchorsfm.colmap.undistort import (
    SourceMap,
    Undistortion,
    has_blank_pixels,
    plan_undistortion,
    source_map,
    undistort_points,
)
from anchorsfm.colmap.write import write_model
from anchorsfm.export.copies import Copy, encode_picture, make_copies, plan_copies, require_own_folder
from anchorsfm.export.photographs import ViewPhotographs
from anchorsfm.export.seeds import DenseSeeds, with_seeds
from anchorsfm.io.store import digest
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.edit import select_points, with_cameras, with_tracks
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.scene.undistortion import UndistortConfig

_VERSION = 1
"""Raise when pixels are made differently: earlier copies are then made again."""
_MUCH_CUT = 0.9
"""Less than this share left by centring the principal point is worth a warning."""


def export_undistorted(
    entry: StoredModel,
    photographs: ViewPhotographs,
    target: Path,
    folder: Path,
    config: UndistortConfig,
    jpeg_quality: int,
    progress: Progress,
    seeds: DenseSeeds | None = None,
) -> list[str]:
    """Write the undistorted copy into `folder`, but for pictures that lie finished in `target`; their paths there.

    `seeds` become points of the model, too.

    Raises:
        InputError: the folder is not ours, a photograph cannot be read, or hardly anything of a picture would be left.
        StorageError: something cannot be written.
    """
    require_own_folder(target, photographs)
    plans = _plan(entry, config, progress)
    masked = photographs.masks is not None or any(has_blank_pixels(plan) for plan in plans)
    copies = plan_copies(photographs, keys=_keys(photographs, plans, jpeg_quality, masked=masked), with_masks=masked)
    workshop = _Workshop(photographs, plans, jpeg_quality)
    by_camera = sorted(copies, key=lambda copy: int(photographs.images.camera_index[copy.view]))  # a map serves a run
    kept = make_copies(target, folder, by_camera, workshop.make, progress, what="undistorting photographs")
    names = [Path(copy.image).name for copy in copies]
    model = undistorted_model(entry.model, plans)
    write_model(folder / "sparse" / "0", model if seeds is None else with_seeds(model, seeds), names)
    return kept


def undistorted_model(model: Reconstruction, plans: list[Undistortion]) -> Reconstruction:
    """The same poses and points seen by the PINHOLE cameras of `plans`, one for each camera; images are 0, 1, ..."""
    tracks = model.tracks
    camera = model.camera_index[tracks.obs_image]
    xy = np.full(tracks.obs_xy.shape, np.nan)
    for row, plan in enumerate(plans):
        xy[camera == row] = undistort_points(plan, tracks.obs_xy[camera == row])
    seen = with_tracks(model, replace(tracks, obs_xy=xy))
    kept = select_points(seen, np.isfinite(xy).all(axis=1), min_length=1)
    return with_cameras(kept, [plan.target for plan in plans])


def _plan(entry: StoredModel, config: UndistortConfig, progress: Progress) -> list[Undistortion]:
    plans = []
    for row, camera in enumerate(entry.model.cameras):
        example = entry.view_names[int(np.flatnonzero(entry.model.camera_index == row)[0])]
        try:
            plans.append(plan_undistortion(camera, config))
        except ValueError as error:
            raise InputError(f"the {camera.model} camera of {example} cannot be undistorted: {error}") from error
        if plans[-1].kept < _MUCH_CUT:
            progress.warn(
                f"centring the principal point cuts {100 * (1 - plans[-1].kept):.0f} % of {example} and images of the "
                "same camera: --undistort.no-centre-principal-point keeps them whole, for trainers that read cx and cy"
            )
    return plans


def _keys(photographs: ViewPhotographs, plans: list[Undistortion], jpeg_quality: int, *, masked: bool) -> list[str]:
    cameras = photographs.images.camera_index.tolist()
    return [
        digest(_VERSION, photographs.state(view), plans[camera], jpeg_quality, masked, photographs.invert_masks)
        for view, camera in enumerate(cameras)
    ]


class _Workshop:
    """Makes pictures in several threads; keeps the map of the last camera that more than one image shares."""

    def __init__(self, photographs: ViewPhotographs, plans: list[Undistortion], jpeg_quality: int) -> None:
        self._photographs = photographs
        self._plans = plans
        self._jpeg_quality = jpeg_quality
        self._shared = np.bincount(photographs.images.camera_index, minlength=len(plans)) > 1
        self._lock = threading.Lock()
        self._last: tuple[int, SourceMap] | None = None

    def make(self, copy: Copy) -> dict[str, bytes]:
        """Content of the undistorted picture and of its mask by their paths."""
        header = self._photographs.headers[copy.view]
        camera = int(self._photographs.images.camera_index[copy.view])
        original, suffix = self._photographs.images.path(copy.view), Path(copy.image).suffix
        files: dict[str, bytes] = {}
        if self._plans[camera].is_identity and header.is_plain and original.suffix == suffix:
            files[copy.image] = self._photographs.original(copy.view)
        else:
            picture = self._map(camera).resample(self._photographs.pixels(copy.view))
            quality = self._jpeg_quality
            files[copy.image] = encode_picture(picture, suffix, quality=quality, icc_profile=header.icc_profile)
        if copy.mask is not None:
            mask = self._map(camera).resample_mask(self._photographs.mask(copy.view))
            files[copy.mask] = encode_picture(mask, ".png", quality=self._jpeg_quality)
        return files

    def _map(self, camera: int) -> SourceMap:
        if not self._shared[camera]:
            return source_map(self._plans[camera])
        with self._lock:
            if self._last is None or self._last[0] != camera:
                self._last = camera, source_map(self._plans[camera])
            return self._last[1]
