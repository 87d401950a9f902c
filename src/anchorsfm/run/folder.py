"""The output folder: what lies where. A result appears as a whole, and only what a run wrote is ever replaced."""

import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from anchorsfm.colmap.meshing import delaunay_mesh, poisson_mesh
from anchorsfm.colmap.write import write_models
from anchorsfm.dense.cells import FusedCloud
from anchorsfm.dense.maps import CleanView
from anchorsfm.io.layout import (
    ALIGNMENT,
    CACHE,
    CAMERAS_GEOJSON,
    CAMERAS_KML,
    CONFIG,
    DATABASE,
    DENSE,
    ERRORS,
    FAILED,
    FETCHED,
    FRAMES,
    FRAMES_RECORD,
    GEOREFERENCE,
    GROUND_CONTROL,
    LOCALISATION,
    LOCALISED,
    MASKS,
    PAGE,
    REPORT,
    RIG_CONFIG,
    SPARSE,
    TRANSFORM,
    UNCERTAINTY,
    VIEWS,
    VIEWS_RECORD,
    Layout,
)
from anchorsfm.io.masks import mask_png
from anchorsfm.io.owned import FolderPart, OwnedFolder, Publication
from anchorsfm.io.ply import write_ply
from anchorsfm.io.store import Store, storage_error, to_json, write_atomic
from anchorsfm.localisation.index import ModelIndex, write_index
from anchorsfm.mapping.control import Controlled
from anchorsfm.report.control import describe_control
from anchorsfm.report.folder import try_page
from anchorsfm.report.json_text import report_json
from anchorsfm.report.places import Places
from anchorsfm.results.errors import write_errors
from anchorsfm.results.record import RunReport, UncertaintyReport
from anchorsfm.run.settings import plain
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.images import ImageSet, Origin
from anchorsfm.scene.poses import StoredPose
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes

_PLACES = (GEOREFERENCE, CAMERAS_GEOJSON, CAMERAS_KML)
PARTS = (
    SPARSE,
    DENSE,
    ALIGNMENT,
    REPORT,
    PAGE,
    UNCERTAINTY,
    CONFIG,
    DATABASE,
    MASKS,
    LOCALISATION,
    ERRORS,
    TRANSFORM,
    GROUND_CONTROL,
    *_PLACES,
)
"""What a run publishes, as a whole."""
_MODEL_FILES = ("cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin")


class RunFolder:
    """The output folder of a run: OUT/sparse, OUT/dense, OUT/alignment, OUT/cache and the files beside them.

    Everything but the cache is written aside, between `begin` and `publish`. Until `begin` nothing is made.
    """

    def __init__(self, root: Path, progress: Progress = SILENT, read_also: Iterable[Path] = ()) -> None:
        """`read_also`: output folders in whose caches entries are found too; they stay as they are.

        Raises InputError if one of them is this folder.
        """
        self.root = root
        self.store = Store(Layout(root).cache, progress)
        for other in read_also:
            if root.resolve() == other.resolve():
                raise InputError(f"{root} is both read and written: choose another --output")
            self.store.others = (*self.store.others, Layout(other).cache)
        self._owned = OwnedFolder(root)
        self._publication: Publication | None = None
        self._used_frames: frozenset[Path] = frozenset()
        self._used_views: frozenset[Path] = frozenset()
        self.origins: tuple[Origin, ...] = ()
        """Where photographs of this run were fetched from."""

    @property
    def views(self) -> FolderPart:
        """Where the views of panoramas go, which outlive a run that fails."""
        return FolderPart(owned=self._owned, inner=VIEWS)

    @property
    def frames(self) -> FolderPart:
        """Where the frames of videos go, which outlive a run that fails."""
        return FolderPart(owned=self._owned, inner=FRAMES)

    def fetched(self) -> Path:
        """Where photographs at a URL are fetched to, which stay. Raises StorageError if the folder cannot be made."""
        self._owned.claim()
        folder = self.root / FETCHED
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        return folder

    def use_fetched(self, origin: Origin) -> None:
        """Say where photographs of this run were fetched from."""
        self.origins = (*self.origins, origin)

    def use_frames(self, files: Iterable[Path]) -> None:
        """Say which frames are photographs of this run: the others go when it has a result."""
        self._used_frames |= {path.resolve() for path in files}

    def use_views(self, files: Iterable[Path]) -> None:
        """The same of the views of panoramas, among which may be frames of videos."""
        self._used_views = frozenset(path.resolve() for path in files)

    def require_ready(
        self,
        *,
        dense: bool,
        database: bool,
        places: bool = False,
        control: bool = False,
        descriptors: bool = False,
    ) -> None:
        """Look whether a result can be put here, before any work is done for it; a folder that is not there stays so.

        Args:
            dense: it may have dense clouds.
            database: it will have a database.
            places: it may have positions on the Earth.
            control: it may have ground control points.
            descriptors: it may have descriptors of points.

        Raises:
            StorageError: the folder is not ours, its result could not be replaced without losing something of somebody
                else, or it cannot be written.
        """
        self._owned.require_ours(may_hold=(CACHE,))
        if LOCALISED in self._owned.files():
            raise StorageError(f"{self.root} holds results of another command: choose another --output")
        if self.store.root is not None and self.store.root.is_symlink():
            raise StorageError(f"{self.store.root} is a link: results are never written through links, replace it")
        self._owned.require_writable()
        self._owned.complete()
        foreseen = [REPORT, PAGE, UNCERTAINTY, CONFIG, f"{FAILED}/{REPORT}"]
        foreseen += [f"{SPARSE}/0/{name}" for name in _MODEL_FILES]
        foreseen += [f"{ERRORS}/0.safetensors"]
        foreseen += [f"{DENSE}/0.ply"] if dense else []
        foreseen += [DATABASE] if database else []
        foreseen += _PLACES if places else ()
        foreseen += [GROUND_CONTROL] if control else []
        foreseen += [f"{LOCALISATION}/0.safetensors"] if descriptors else []
        self._owned.require_free(foreseen, (*PARTS, FAILED))

    @contextmanager
    def begin(self, config: object) -> Iterator[None]:
        """Make the folder if need be, and a place for the result, which is dropped unless it is published.

        `config`: settings of the run, which are part of its result. Raises StorageError if it cannot be written.
        """
        with self._owned.publication() as self._publication:
            write_atomic(self._made.config, yaml.safe_dump(plain(config), sort_keys=False))
            try:
                yield
            finally:
                self._publication = None

    @property
    def result(self) -> Path:
        """Where the result of this run grows."""
        assert self._publication is not None, "a result is written after `begin`"
        return self._publication.path

    @property
    def _made(self) -> Layout:
        return Layout(self.result)

    @property
    def database(self) -> Path:
        return self._made.database

    @property
    def depth_pictures(self) -> Path:
        return self._made.depth_pictures

    def require_outside(self, paths: Iterable[Path]) -> None:
        """Raise InputError if a photograph, or a folder of them, lies in the output folder."""
        own = self.root.resolve()
        for path in map(Path.resolve, paths):
            is_photograph = path in self._used_frames | self._used_views or path.is_relative_to(own / FETCHED)
            if path.is_relative_to(own) and not is_photograph:
                raise InputError(
                    f"{path} lies in the output folder {self.root}, where results are not taken for photographs: "
                    "choose another --output"
                )

    def publish(self) -> None:
        """Replace the result of an earlier run by this one.

        Raises StorageError if something of somebody else would be lost, or cannot be written; nothing has changed then.
        """
        assert self._publication is not None, "a result is published after `begin`"
        own = self.root.resolve()
        kept = [path.relative_to(own).as_posix() for path in self._used_frames | self._used_views]
        kept += [f"{FRAMES}/{FRAMES_RECORD}"] if self._used_frames else []
        kept += [f"{VIEWS}/{VIEWS_RECORD}", f"{VIEWS}/{RIG_CONFIG}"] if self._used_views else []
        self._publication.publish((*PARTS, FRAMES, VIEWS, FAILED), kept=kept)

    def publish_failure(self) -> Layout:
        """Keep nothing but report and settings of a run without a model, beside what an earlier one made.

        Returns the paths of their folder. Raises StorageError like `publish`.
        """
        assert self._publication is not None, "a result is published after `begin`"
        for path in list(self.result.iterdir()):
            if path.name not in (REPORT, PAGE, CONFIG):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in list(self.result.iterdir()):
            (self.result / FAILED).mkdir(exist_ok=True)
            path.replace(self.result / FAILED / path.name)
        self._publication.publish((FAILED,))
        return Layout(self.root).failed

    def write_alignments(self, models: Sequence[Reconstruction], names: Sequence[str]) -> None:
        """Poses and intrinsics of each aligned component before any adjustment, as COLMAP models without points."""
        if models:
            write_models(self._made.alignments, models, names)

    def write_models(
        self,
        models: Sequence[Reconstruction],
        names: Sequence[str],
        stored: Mapping[int, StoredPose] | None = None,
    ) -> None:
        """The final models, largest first, as sparse/0, sparse/1, ...; `stored`: poses of images that stay as they are
        on the disk."""
        if models:
            write_models(self._made.models, models, names, stored=stored)

    def write_index(self, number: int, index: ModelIndex) -> None:
        """What new photographs are placed with in a model, as localisation/NUMBER.safetensors."""
        write_index(self._made.localisation(number), index)

    def write_errors(self, number: int, modes: ErrorModes, names: Sequence[str]) -> None:
        """What errors the cameras of a model may have together, as errors/NUMBER.safetensors; `names`: of its views."""
        write_errors(self._made.errors(number), modes, names)

    def write_cloud(self, number: int, cloud: FusedCloud) -> None:
        """The dense cloud of a model as dense/NUMBER.ply."""
        path = self._made.cloud(number)
        write_ply(path, cloud.xyz, cloud.rgb, normal=cloud.normal, confidence=cloud.confidence)

    def write_mesh(self, number: int, method: str, cloud: FusedCloud) -> None:
        """A surface as dense/NUMBER-mesh.ply: of the dense cloud (poisson) or of the sparse points (delaunay)."""
        mesh = self._made.mesh(number)
        if method == "poisson" and len(cloud.xyz):
            poisson_mesh(self._made.cloud(number), mesh, len(cloud.xyz))
        elif method == "delaunay":
            delaunay_mesh(self._made.model(number), mesh)

    def write_depth_map(self, name: str, clean: CleanView) -> None:
        """Depth and confidence of an image, as dense/depth/NAME.depth.npy and NAME.confidence.npy.

        Arrays (height, width) of float32. Depth is along the optical axis in units of the model, 0 where none was kept;
        confidence is the number of agreeing views, each weighted by its correlation, 0 where none was kept. Pixels are
        those of the pinhole picture that cameras.json describes, row 0 at the top.
        """
        kept = clean.view.confidence > 0
        for path, values in (
            (self._made.depth_map(name, "depth"), np.where(kept, clean.view.depth, 0)),
            (self._made.depth_map(name, "confidence"), clean.view.confidence),
        ):
            buffer = io.BytesIO()
            np.save(buffer, values.astype(np.float32), allow_pickle=False)
            write_atomic(path, buffer.getvalue())

    def write_depth_cameras(self, cameras: Mapping[str, object]) -> None:
        """The cameras of all depth maps by image name, as dense/depth/cameras.json."""
        write_atomic(self._made.depth_cameras, to_json(cameras))

    def write_uncertainty(self, models: Sequence[UncertaintyReport]) -> None:
        """Standard deviations of poses and intrinsics of all models."""
        write_atomic(self._made.uncertainty, to_json(list(models)))

    def write_transforms(self, record: str | None) -> None:
        """How the frames of the models differ from those they were made in, if they do."""
        if record is not None:
            write_atomic(self._made.transform, record)

    def write_masks(self, images: ImageSet) -> None:
        """What of each photograph was looked at, for exports, if anything was masked."""
        for image, mask in enumerate(images.masks or ()):
            width, height = images.size_wh[image].tolist()
            write_atomic(self._made.mask(images.names[image]), mask_png(mask, (width, height)))

    def write_places(self, places: Places) -> None:
        """Where the models and their cameras are on the Earth."""
        places.write(self._made)

    def write_control(self, found: Sequence[Controlled], ground: GroundPoints, names: Sequence[str]) -> None:
        """How the models agree with ground control points."""
        write_atomic(self._made.ground_control, to_json(describe_control(found, ground, names)))

    def write_report(self, report: RunReport, models: Sequence[Reconstruction], progress: Progress) -> None:
        """Everything the run says about itself: report.json, uncertainty.json, and report.html made from the first.

        A page that cannot be made is a warning.
        """
        self.write_uncertainty([model.uncertainty for model in report.models])
        write_atomic(self._made.report, report_json(report))
        try_page(self.root, self.result, models, progress)
