"""COLMAP's incremental and global mapper (GLOMAP) on a database of `colmap.database` (docs/method.md, Mappers).

Schoenberger and Frahm, "Structure-from-motion revisited", CVPR 2016; Pan et al., "Global structure-from-motion
revisited", ECCV 2024. Both run on one thread and with a fixed seed unless told otherwise, so that equal input gives
equal bits. They need no image files. COLMAP's thresholds are pixels of the images that keypoints were found on; here
they are multiplied by `working_scale`, original pixels per such pixel.

The mappers run in a thread of their own that holds no lock of Python's, because a call into COLMAP would otherwise keep
Ctrl-C waiting until it ends: an interrupt cancels the incremental mapper at its next image and leaves the global one,
which cannot be cancelled, to end by itself in the background. They work on a copy of the database, because the global
mapper writes to it.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Float

from anchorsfm.colmap.cameras import FOCAL_RANGE
from anchorsfm.colmap.convert import from_mapper
from anchorsfm.colmap.quiet import silent
from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.store import storage_error
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction

_FEW_IMAGES = 10
"""Up to here points that only two images see are needed; the global mapper otherwise wants three."""
_DATABASE = "database.db"
_POLL_SECONDS = 0.1
_CANCEL_SECONDS = 3.0
"""The incremental mapper looks at its token between images; a thread that is slower is left to end by itself."""


@dataclass(frozen=True, kw_only=True)
class MapperOptions:
    """One run of a mapper."""

    working_scale: float = 1.0
    """Original pixels per pixel of the images that keypoints were found on."""
    refine_distortion: bool = True
    """Adjust distortion together with focal lengths; principal points stay where they are."""
    min_matches: int = 15
    """Pairs with fewer verified matches are not used."""
    min_model_size: int = 2
    """Models of fewer images are not returned."""
    seed: int = 0
    num_threads: int = 1
    """One thread gives the same bits on every run."""


def map_incremental(
    database: Path,
    keypoints: Sequence[Float[np.ndarray, "_ 2"]],
    options: MapperOptions,
    *,
    constant_camera: Bool[np.ndarray, "camera"] | None = None,
    progress: Progress = SILENT,
) -> list[Reconstruction]:
    """Models by COLMAP's incremental mapper, the largest first; none if no two images could be related.

    Args:
        database: as `write_database` left it.
        keypoints: `PairMatches.keypoints`: coordinates of the database's keypoints in full precision.
        options: settings.
        constant_camera: cameras of the ImageSet whose intrinsics are given and stay as they are.
        progress: receives one stage with a step per registered image.

    Raises:
        StorageError: the temporary folder cannot be written.
    """
    settings = _incremental_options(options, constant_camera)
    if _two_views_at_most(keypoints):
        settings.ba_refine_focal_length = settings.ba_refine_extra_params = False
    token = pycolmap.CancellationToken()
    with progress.stage("incremental mapper", len(keypoints)) as advance, _workspace(database) as folder:
        left = len(keypoints)

        def registered(count: int) -> None:
            nonlocal left  # images that are tried again, or are in two models, must not count twice
            count = min(count, left)
            left -= count
            advance(count)

        def work() -> dict[int, pycolmap.Reconstruction]:
            return pycolmap.incremental_mapping(
                folder / _DATABASE,
                folder,
                folder,
                settings,
                initial_image_pair_callback=lambda: registered(2),
                next_image_callback=lambda: registered(1),
                cancellation_token=token,
            )

        models = _interruptible(work, token.cancel)
    return _largest_first(models, keypoints, options)


def map_global(
    database: Path,
    keypoints: Sequence[Float[np.ndarray, "_ 2"]],
    options: MapperOptions,
    *,
    constant_camera: Bool[np.ndarray, "camera"] | None = None,
    progress: Progress = SILENT,
) -> list[Reconstruction]:
    """Models by COLMAP's global mapper, the largest first; arguments and errors as for `map_incremental`.

    It relies on the focal lengths in the database, adjusts either all cameras or none, and therefore none as soon as
    one of them is given.
    """
    settings = _global_options(options, len(keypoints))
    if (constant_camera is not None and constant_camera.any()) or _two_views_at_most(keypoints):
        settings.mapper.bundle_adjustment.refine_focal_length = False
        settings.mapper.bundle_adjustment.refine_extra_params = False
    with progress.stage("global mapper"), _workspace(database) as folder:
        models = _interruptible(lambda: pycolmap.global_mapping(folder / _DATABASE, folder, folder, settings))
    return _largest_first(models, keypoints, options)


def _two_views_at_most(keypoints: Sequence[Float[np.ndarray, "_ 2"]]) -> bool:
    """Two views do not show intrinsics: freeing them would only make the poses worse."""
    return sum(len(xy) > 0 for xy in keypoints) <= 2


def _incremental_options(
    options: MapperOptions, constant_camera: Bool[np.ndarray, "camera"] | None
) -> pycolmap.IncrementalPipelineOptions:
    settings = pycolmap.IncrementalPipelineOptions()
    settings.random_seed = settings.mapper.random_seed = settings.triangulation.random_seed = options.seed
    settings.num_threads = settings.mapper.num_threads = options.num_threads
    settings.extract_colors = False
    settings.min_num_matches = options.min_matches
    settings.min_model_size = options.min_model_size
    settings.ba_refine_extra_params = options.refine_distortion
    settings.mapper.abs_pose_refine_extra_params = options.refine_distortion
    settings.triangulation.ignore_two_view_tracks = False
    scale = options.working_scale
    for name in ("init_max_error", "abs_pose_max_error", "filter_max_reproj_error"):
        setattr(settings.mapper, name, getattr(settings.mapper, name) * scale)
    for name in ("merge_max_reproj_error", "complete_max_reproj_error"):
        setattr(settings.triangulation, name, getattr(settings.triangulation, name) * scale)
    for limits in (settings, settings.mapper):
        limits.min_focal_length_ratio, limits.max_focal_length_ratio = FOCAL_RANGE
    if constant_camera is not None:
        settings.constant_cameras = {int(row) + 1 for row in np.flatnonzero(constant_camera)}
    return settings


def _global_options(options: MapperOptions, num_images: int) -> pycolmap.GlobalPipelineOptions:
    settings = pycolmap.GlobalPipelineOptions()
    mapper = settings.mapper
    settings.random_seed = mapper.random_seed = options.seed
    for part in (mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation):
        part.random_seed = options.seed
    settings.num_threads = mapper.num_threads = options.num_threads
    settings.min_num_matches = options.min_matches
    settings.min_model_size = options.min_model_size
    mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
    mapper.bundle_adjustment.refine_extra_params = options.refine_distortion
    mapper.bundle_adjustment.ceres.loss_function_scale *= options.working_scale
    for name in ("merge_max_reproj_error", "complete_max_reproj_error"):
        setattr(mapper.retriangulation, name, getattr(mapper.retriangulation, name) * options.working_scale)
    if num_images <= _FEW_IMAGES:
        mapper.track_min_num_views_per_track = 2
        mapper.global_positioning.min_num_view_per_track = 2
        mapper.bundle_adjustment.min_track_length = 2
        mapper.retriangulation.ignore_two_view_tracks = False
    return settings


def _largest_first(
    models: dict[int, pycolmap.Reconstruction], keypoints: Sequence[Float[np.ndarray, "_ 2"]], options: MapperOptions
) -> list[Reconstruction]:
    """Models in our types; an image that several models hold stays in the largest of them only."""
    taken: set[int] = set()
    separate = []
    for model in sorted(models.values(), key=lambda model: (-model.num_reg_images(), -model.num_points3D())):
        for image_id in taken & set(model.reg_image_ids()):
            model.deregister_frame(model.images[image_id].frame_id)
        if model.num_reg_images() >= options.min_model_size and model.num_points3D():
            taken |= set(model.reg_image_ids())
            made = from_mapper(model, keypoints)
            separate += [made] if made is not None else []
    return sorted(separate, key=lambda model: -len(model.image_index))


@contextmanager
def _workspace(database: Path) -> Iterator[Path]:
    """A folder for what the mappers write, with a copy of the database in it."""
    try:
        folder = tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from error
    try:
        try:
            shutil.copyfile(database, Path(folder) / _DATABASE)
        except OSError as error:
            raise storage_error(Path(folder), error) from error
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interruptible(
    work: Callable[[], dict[int, pycolmap.Reconstruction]], cancel: Callable[[], None] | None = None
) -> dict[int, pycolmap.Reconstruction]:
    """The result of `work`, done in a thread so that an interrupt is heard at once.

    Waits on an event: in Python 3.11 a `Thread.join` that was interrupted takes the thread for finished.
    """
    result: dict[int, pycolmap.Reconstruction] = {}
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            with silent():  # also while it ends after an interrupt
                result.update(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=run, daemon=True).start()
        while not done.wait(_POLL_SECONDS):
            pass
    except BaseException:
        if cancel is not None:
            cancel()
            done.wait(_CANCEL_SECONDS)
        raise
    if errors:
        raise errors[0]
    return result
