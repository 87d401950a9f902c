"""Photographs in, their poses in a finished model out."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.sensors import sensor_width_mm
from anchorsfm.io.images import load_image_set
from anchorsfm.io.layout import Layout
from anchorsfm.io.listing import frames_not_taken
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.localisation.candidates import PointMatches
from anchorsfm.localisation.config import LocaliseConfig
from anchorsfm.localisation.index import ModelIndex, read_index
from anchorsfm.localisation.looks import PhotographReader
from anchorsfm.localisation.model_errors import ModelErrors
from anchorsfm.localisation.pose import CameraGuess, PlacedView, camera_guesses, place
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Camera

_MAX_CAMERAS = 5
"""Cameras of a model that a photograph may be from."""
_PLENTY, _MAJORITY = 300, 0.5
"""Points that agree with a pose, and their share of the matches, which are enough to be sure of it."""


@dataclass(frozen=True, kw_only=True)
class LocalisedImage:
    """What came of one photograph. Poses are cam_from_world, COLMAP's axes, in the frame and unit of the model."""

    name: str
    cam_from_world: Float[np.ndarray, "3 4"] | None = None
    """None: it could not be placed."""
    reason: str | None = None
    """Why not."""
    camera: Camera | None = None
    focal_source: str | None = None
    """Where the focal length is from: given, model, EXIF, estimated."""
    num_inliers: int = 0
    """Points of the model that agree with the pose, of `num_matches`."""
    num_matches: int = 0
    error_px: float | None = None
    """Median reprojection error of those that agree, original pixels."""
    covariance: Float[np.ndarray, "6 6"] | None = None
    """Of rotation vector (radians, in the axes of the camera: R' = exp([w]x) R) and camera centre (axes and unit of the
    model); errors of the model included, where `has_model_errors` is set."""
    position_deviation: float | None = None
    """Standard deviation in units of the model: root of the summed variances of the coordinates."""
    rotation_deviation_deg: float | None = None
    """The same of the rotation vector."""
    has_model_errors: bool = False
    """Whether the model says how far its own cameras may be off, and the deviations include it."""
    focal_deviation_px: float | None = None
    """0: the focal length was kept."""
    point: Int[np.ndarray, "inlier"] | None = None
    """Rows of the model's points that agree."""
    xy_px: Float[np.ndarray, "inlier 2"] | None = None
    """Where the photograph shows them, original pixels."""

    @property
    def is_placed(self) -> bool:
        return self.cam_from_world is not None


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Poses of new photographs against a model."""

    model: Path
    """The folder of the model."""
    images: tuple[LocalisedImage, ...]
    """In the order of the photographs; files that could not be read come last."""

    @property
    def placed(self) -> dict[str, LocalisedImage]:
        """Those with a pose by name."""
        return {image.name: image for image in self.images if image.is_placed}

    @property
    def refused(self) -> dict[str, str]:
        """Why the others have none, by name."""
        return {image.name: image.reason or "" for image in self.images if not image.is_placed}


@dataclass(frozen=True, kw_only=True)
class LocalisableModel:
    """A finished model with the descriptors of its points."""

    stored: StoredModel
    index: ModelIndex

    @cached_property
    def errors(self) -> ModelErrors:
        """Of the model itself."""
        return ModelErrors.of(self.stored)


def index_path(stored: StoredModel) -> Path:
    """Where the descriptors of a model's points are: in its output folder, or beside the files of another model."""
    layout = stored.run.layout if stored.run is not None and stored.is_result else Layout(stored.folder)
    return layout.localisation(stored.title)


def index_remedy(stored: StoredModel) -> str:
    """How the descriptors of a model are made anew."""
    command = f"anchorsfm index {shlex.quote(str(stored.folder))}"
    try:
        root = stored.image_root
    except InputError:
        root = None
    if root is None or not stored.has_photographs_in(root):
        command += " --images DIR, where DIR has its photographs"
    return f"make it anew with {command}"


def read_localisable(folder: Path) -> LocalisableModel:
    """The largest model that a folder stands for.

    Raises InputError if there is none, it has no descriptors, or a file is damaged.
    """
    stored = max(read_models(folder), key=lambda entry: (len(entry.names), -entry.number))
    path = index_path(stored)
    index = read_index(path, index_remedy(stored))
    if index is None:
        raise InputError(
            f"the model in {stored.folder} comes without the descriptors of its points: find them with anchorsfm index "
            f"{stored.folder} --images DIR, where DIR has its photographs"
        )
    if index.num_points != len(stored.model.points) or index.num_views != len(stored.names):
        raise InputError(
            f"{path} belongs to another model than {stored.folder}, which was changed since: run the same anchorsfm "
            "reconstruct again, or anchorsfm index"
        )
    return LocalisableModel(stored=stored, index=index)


def localise(
    source: Path | list[Path], model: LocalisableModel, config: LocaliseConfig, progress: Progress = SILENT
) -> Localisation:
    """Place photographs, each by itself, in a model that stays as it is.

    Args:
        source: folder, list file, or several of those and image files.
        model: of `read_localisable`.
        config: settings.
        progress: receives stages and warnings.

    Raises InputError if there is no photograph that can be read.
    """
    passed_over = frames_not_taken([source] if isinstance(source, Path) else source)
    if passed_over is not None:
        progress.warn(passed_over)
    source = [source] if isinstance(source, Path) and not source.is_dir() else source  # one photograph is enough
    images = load_image_set(
        source,
        camera_mode="per-image",
        focal_px=config.focal_px,
        reads_positions=False,
        sensor_widths=sensor_width_mm,
        progress=progress,
    )
    reader = PhotographReader.of(images, model.index, max_candidates=config.max_candidates)
    placed = []
    with single_threaded_libraries(), progress.stage("localising photographs", images.num_images) as advance:
        for image in range(images.num_images):
            try:
                placed.append(_localise(reader, image, model, config))
            except InputError as error:
                progress.warn(f"skipped {images.names[image]}: {error}")
                placed.append(LocalisedImage(name=images.names[image], reason=str(error)))
            advance(1)
    skipped = [LocalisedImage(name=file.name, reason=file.reason) for file in images.skipped]
    return Localisation(model=model.stored.folder, images=(*placed, *skipped))


def _localise(reader: PhotographReader, image: int, model: LocalisableModel, config: LocaliseConfig) -> LocalisedImage:
    images = reader.images
    width, height = images.size_wh[image].tolist()
    guesses = camera_guesses(
        (width, height),
        list(_by_use(model.stored)),
        focal_px=config.focal_px,
        recorded_px=float(images.focal_prior_px[image]),
        recorded_deviation=np.nan if images.focal_deviation is None else float(images.focal_deviation[image]),
    )
    enough = max(_PLENTY, config.min_inliers)
    first = reader.first(image, enough) if any(guess.is_exact for guess in guesses) else ()
    points = model.stored.model.points
    found, view = place_among(first, lambda: reader.all(image), points, guesses, min_inliers=config.min_inliers)
    if not isinstance(view, PlacedView):
        return LocalisedImage(name=images.names[image], reason=view, num_matches=len(found.point))
    return _placed(images.names[image], view, found, model.errors)


def place_among(
    first: Iterable[PointMatches],
    everything: Callable[[], PointMatches],
    points: Float[np.ndarray, "point 3"],
    guesses: Sequence[CameraGuess],
    *,
    min_inliers: int,
) -> tuple[PointMatches, PlacedView | str]:
    """What a photograph shows of a model's points, and its pose or why it has none.

    Everything that it shows is asked for where what is found first leaves a doubt, and where its lens is not the
    model's: the more points there are, the better they determine it.
    """
    for found in first:
        view = place(found.xy, points[found.point], guesses, min_inliers=min_inliers)
        if isinstance(view, PlacedView) and view.open_deviations.any():
            break
        if isinstance(view, PlacedView) and view.inlier.sum() >= max(_PLENTY, _MAJORITY * len(view.inlier)):
            return found, view
    found = everything()
    return found, place(found.xy, points[found.point], guesses, min_inliers=min_inliers)


def _placed(name: str, view: PlacedView, found: PointMatches, errors: ModelErrors) -> LocalisedImage:
    point, xy = found.point[view.inlier], found.xy[view.inlier]
    order = np.argsort(point, kind="stable")
    of_model = errors.covariance(view, point, xy)
    covariance = view.covariance if of_model is None else view.covariance + of_model
    variance = np.diag(covariance)
    return LocalisedImage(
        name=name,
        cam_from_world=view.cam_from_world,
        camera=view.camera,
        focal_source=view.focal_source,
        num_inliers=len(point),
        num_matches=len(found.point),
        error_px=view.error_px,
        covariance=covariance,
        position_deviation=float(np.sqrt(variance[3:].sum())),
        rotation_deviation_deg=float(np.degrees(np.sqrt(variance[:3].sum()))),
        has_model_errors=of_model is not None,
        focal_deviation_px=view.focal_deviation_px,
        point=point[order],
        xy_px=xy[order],
    )


def _by_use(stored: StoredModel) -> Iterable[Camera]:
    """The cameras of a model, that of most images first; a few are enough."""
    count = np.bincount(stored.model.camera_index, minlength=len(stored.model.cameras))
    return (stored.model.cameras[row] for row in np.argsort(-count, kind="stable")[:_MAX_CAMERAS])
