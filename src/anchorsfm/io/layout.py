"""What lies where in an output folder: the one list of its paths, for those who write and those who read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPORT, PAGE, UNCERTAINTY, CONFIG, DATABASE = (
    "report.json",
    "report.html",
    "uncertainty.json",
    "config.yaml",
    "database.db",
)
GEOREFERENCE, CAMERAS_GEOJSON, CAMERAS_KML = "georeference.json", "cameras.geojson", "cameras.kml"
GROUND_CONTROL = "ground_control.json"
SPARSE, DENSE, ALIGNMENT, CACHE, EXPORT = "sparse", "dense", "alignment", "cache", "export"
TEMPORARY_PREFIX = ".anchorsfm-"
"""Of files and folders that are being written; what a killed run left of them is removed by the next one."""
FRAMES, FRAMES_RECORD = "frames", "frames.json"
"""Folder of the frames of videos, and the file in it that says how they were chosen."""
VIEWS, VIEWS_RECORD, RIG_CONFIG = "views", "panoramas.json", "rig_config.json"
"""Folder of the views of panoramas, the file in it that says what was cut, and the rig that they are for COLMAP."""
FETCHED = "fetched"
"""Folder of the photographs that were at a URL."""
MASKS = "masks"
LOCALISATION = "localisation"
"""Folder of what new photographs are placed with."""
ERRORS = "errors"
"""Folder of what errors the cameras of each model may have together."""
TRANSFORM = "transform.json"
"""How the frames of the models differ from those they were made in."""
LOCALISED = "poses.json"
"""What `localise` writes, and no run does."""
FAILED = "failed"
"""Folder for the report and settings of the last run that made no model; the next one that makes one removes it."""


@dataclass(frozen=True)
class Layout:
    """Paths in an output folder, or in the folder where a result grows."""

    root: Path

    @property
    def report(self) -> Path:
        """What the run says about itself, for programs."""
        return self.root / REPORT

    @property
    def page(self) -> Path:
        """The same for people."""
        return self.root / PAGE

    @property
    def uncertainty(self) -> Path:
        """Standard deviations of poses and intrinsics of all models."""
        return self.root / UNCERTAINTY

    @property
    def config(self) -> Path:
        """Settings of the run."""
        return self.root / CONFIG

    @property
    def transform(self) -> Path:
        """How the frames of the models differ from those they were made in; none if they do not."""
        return self.root / TRANSFORM

    @property
    def masks(self) -> Path:
        """Folder of the masks that photographs were looked at with, in their full size."""
        return self.root / MASKS

    def mask(self, name: str) -> Path:
        """The mask of a photograph."""
        return self.masks / f"{name}.png"

    @property
    def georeference(self) -> Path:
        """The metric frame of the models on the Earth, and where their cameras are."""
        return self.root / GEOREFERENCE

    @property
    def cameras_geojson(self) -> Path:
        """Where the cameras are, for geographic information systems."""
        return self.root / CAMERAS_GEOJSON

    @property
    def cameras_kml(self) -> Path:
        """The same for globes."""
        return self.root / CAMERAS_KML

    @property
    def ground_control(self) -> Path:
        """How the models agree with ground control points."""
        return self.root / GROUND_CONTROL

    @property
    def database(self) -> Path:
        """Keypoints and matches as a COLMAP database."""
        return self.root / DATABASE

    @property
    def models(self) -> Path:
        """Folder of the numbered models."""
        return self.root / SPARSE

    @property
    def alignments(self) -> Path:
        """Folder of the numbered alignments."""
        return self.root / ALIGNMENT

    def model(self, number: int | str) -> Path:
        """A model's folder."""
        return self.models / str(number)

    def localisation(self, number: int | str) -> Path:
        """The descriptors of a model's points."""
        return self.root / LOCALISATION / f"{number}.safetensors"

    def errors(self, number: int | str) -> Path:
        """What errors the cameras of a model may have together."""
        return self.root / ERRORS / f"{number}.safetensors"

    def cloud(self, number: int | str) -> Path:
        """The dense cloud of a model."""
        return self.root / DENSE / f"{number}.ply"

    def mesh(self, number: int | str) -> Path:
        """The surface of a model."""
        return self.root / DENSE / f"{number}-mesh.ply"

    @property
    def exports(self) -> Path:
        """Folder of the folders of each export."""
        return self.root / EXPORT

    @property
    def depth_maps(self) -> Path:
        """Folder of depth maps and their cameras."""
        return self.root / DENSE / "depth"

    @property
    def depth_cameras(self) -> Path:
        """The cameras of all depth maps."""
        return self.depth_maps / "cameras.json"

    def depth_map(self, name: str, kind: Literal["depth", "confidence"]) -> Path:
        """Depth of an image, or how certain it is."""
        return self.depth_maps / f"{name}.{kind}.npy"

    @property
    def frames(self) -> Path:
        """Folder of the frames of videos."""
        return self.root / FRAMES

    @property
    def views(self) -> Path:
        """Folder of the views of panoramas."""
        return self.root / VIEWS

    @property
    def cache(self) -> Path:
        """Folder of what the next run need not compute again."""
        return self.root / CACHE

    @property
    def failed(self) -> "Layout":
        """Paths of the report and settings of a run that made no model."""
        return Layout(self.root / FAILED)

    @property
    def depth_pictures(self) -> Path:
        """Small pictures of depth maps, for the page."""
        return self.root / DENSE / "pictures.safetensors"
