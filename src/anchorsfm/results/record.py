"""The record of a run: everything in `report.json`. All figures of the page come from here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anchorsfm.io.clock import StageTiming
from anchorsfm.scene.executor import NodeShare
from anchorsfm.scene.pairs import PairSearch
from anchorsfm.tracks.lens import LensChoice
from anchorsfm.video.record import VideoFrames

SCHEMA_VERSION = 1
"""Of report.json: raised when a key changes its meaning or goes; new keys do not raise it."""


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    """One photograph."""

    name: str
    model: int | None
    """Number of the model it is registered in; None: not registered."""
    observations: int
    reason: str | None
    """Why it is not registered."""
    size_wh: tuple[int, int] | None = None
    """Upright width and height in pixels; None: the file could not be used."""
    camera: int | None = None
    """Row of its camera among those of its model."""
    mean_error_px: float | None = None
    """Mean reprojection error of its observations."""


@dataclass(frozen=True, kw_only=True)
class UpReport:
    """Why the z axis of a model points up."""

    source: str
    """gravity: as phones recorded it; cameras: as they were held; flight: as they flew; plane, manhattan: the points;
    positions: the records, or control points."""
    deviation_deg: float | None
    """How far it may be off, roughly; None: not estimated."""


@dataclass(frozen=True, kw_only=True)
class PoseDeviation:
    """Standard deviations of one pose; None where they could not be estimated."""

    name: str
    position: float | None
    """World units."""
    position_share: float | None
    """Share of the scene size."""
    position_m: float | None
    """Metres, where the scale is known from given poses in metres."""
    rotation_deg: float | None
    weak: bool
    """Weakly held: compare before relying on it."""
    position_axes: tuple[float, float, float] | None = None
    """Along x, y and z of the world, world units; None where the directions are not known."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyReport:
    """How far the model may be off: noise, what the photographs disagree about, and what the lenses may do besides."""

    scene_size: float
    """Radius of points and cameras together, in world units."""
    images: tuple[PoseDeviation, ...]
    camera_params: tuple[tuple[float, ...] | None, ...]
    """Of every camera in COLMAP's parameter order; 0 for parameters that were held."""

    @property
    def weak_images(self) -> list[str]:
        return [image.name for image in self.images if image.weak]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of values between edges."""

    edges: tuple[float, ...]
    """One more than counts; the first is included, values at the last one and beyond count as `above`."""
    counts: tuple[int, ...]
    above: int
    mean: float | None
    median: float | None
    percentile_90: float | None


@dataclass(frozen=True, kw_only=True)
class ResidualField:
    """Mean residuals (projected minus observed) of one camera on a grid of cells, row after row from the top left."""

    camera: int
    """Row among the cameras of the model."""
    width: int
    height: int
    """Of its images in pixels."""
    columns: int
    rows: int
    count: tuple[int, ...]
    """Observations in each cell, of all images of the camera."""
    mean_x_px: tuple[float | None, ...]
    mean_y_px: tuple[float | None, ...]
    rms_px: tuple[float | None, ...]
    systematic: float | None
    """Share of the squared residuals that the means of the cells explain, freed of what noise explains by chance: about
    0 for a lens model that fits."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Pairs of registered images that see common points, as columns; images are rows of `images` in the report."""

    total: int
    """Number of such pairs; of very many only those with the most common points are listed."""
    i: tuple[int, ...]
    j: tuple[int, ...]
    shared: tuple[int, ...]
    """Points that both see."""
    tree: tuple[tuple[int, int], ...]
    """The pairs that hold everything together."""
    tree_of: str
    """What tree that is: the one the alignment chained poses along, or the maximum spanning tree of shared points."""


@dataclass(frozen=True, kw_only=True)
class TopView:
    """Camera centres seen from above, in world units: x to the right, y up on the page."""

    image: tuple[int, ...]
    """Rows of `images` in the report."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    height: tuple[float, ...]
    """Along the up axis."""
    up: tuple[float, float, float]
    """World direction that is taken for up: z where the model is level, else what the cameras say."""


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """What the diagrams of one model show."""

    track_length: Histogram
    """Images that see a point."""
    reprojection_error_px: Histogram
    """Of every observation."""
    triangulation_angle_deg: Histogram
    """Widest angle between the rays of a point."""
    residuals: tuple[ResidualField, ...]
    links: Links
    top_view: TopView


@dataclass(frozen=True, kw_only=True)
class ContradictedPairs:
    """Pairs of registered images most of whose verified matches disagree with the model, as columns."""

    examined: int
    """Pairs of registered images with enough verified matches to say something."""
    i: tuple[int, ...]
    """Rows of `images` in the report."""
    j: tuple[int, ...]
    matches: tuple[int, ...]
    """Verified."""
    agreeing: tuple[int, ...]
    """Of them, with the model."""


@dataclass(frozen=True, kw_only=True)
class PositionResidual:
    """The recorded position of one image against the model."""

    name: str
    residual_m: tuple[float, float, float]
    """Model minus record, to the east, to the north and upwards."""
    sigma_m: tuple[float, float, float]
    """Standard deviations that the record was given."""
    outlier: bool
    """It contradicts the model and had no say."""


@dataclass(frozen=True, kw_only=True)
class GeoreferenceReport:
    """What recorded positions came to for one model."""

    mode: str
    """check: compared only; align: the model is in their frame; prior: it was adjusted with them too."""
    problem: str | None
    """Why the model is not in their frame."""
    rms_m: tuple[float, float, float] | None
    """Root mean square residuals by axis, of records that are no outliers; None: there are none."""
    residuals: tuple[PositionResidual, ...]
    straightened_m: float | None = None
    """How far cameras were moved against each other, at most, because the model was bent; None: they were not."""


@dataclass(frozen=True, kw_only=True)
class FocalReport:
    """A focal length that matches say together with a record (EXIF, or given), straight edges or an assumption."""

    camera: int
    """Row among the cameras of the model."""
    free_px: float | None
    """What the photographs say alone; None: nothing that makes a model."""
    free_sigma_px: float | None
    recorded_px: float | None
    """None: nothing is recorded, or it contradicts the photographs."""
    recorded_sigma_px: float | None
    sigma_px: float
    """Standard deviation of the focal length of the model."""
    assumed_px: float | None = None
    """A usual focal length that was brought in because neither photographs nor a record show it; None: it was not."""
    assumed_sigma_px: float | None = None
    lines_px: float | None = None
    """What straight edges of the photographs show, taken to be at right angles; None: they were not brought in."""
    lines_sigma_px: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """One model OUT/sparse/<number>."""

    number: int
    registered: int
    points: int
    observations: int
    mean_track_length: float
    mean_reprojection_error_px: float
    cameras: tuple[str, ...]
    lenses: tuple[LensChoice, ...]
    """How the camera model of each camera was chosen; empty if it was given."""
    uncertainty: UncertaintyReport
    figures: ModelFigures
    up: UpReport | None = None
    """Why z is up; None: the model is not level, its frame is any."""
    remarks: tuple[str, ...] = ()
    """What a reader should know before relying on the model: what is undetermined, or contradicts a record."""
    georeference: GeoreferenceReport | None = None
    """None: no positions are recorded, or they were not looked at."""
    focal_lengths: tuple[FocalReport, ...] = ()
    """Where records of focal lengths were brought in."""
    contradicted: ContradictedPairs | None = None
    """Verified matches against the model; None: it was not examined."""


@dataclass(frozen=True, kw_only=True)
class PairColumns:
    """All pairs that were looked at, as columns; images are rows of `images` in the report."""

    statuses: tuple[str, ...]
    i: tuple[int, ...]
    j: tuple[int, ...]
    status: tuple[int, ...]
    """Row of `statuses`."""
    matches: tuple[int, ...]
    """Verified matches."""
    methods: tuple[str, ...] = ()
    """Detectors, or several of them, that found the matches of pairs which more than one looked at."""
    method: tuple[int, ...] = ()
    """Row of `methods`, -1 for pairs that one detector alone looked at or that are unmatched; empty: all are such."""


@dataclass(frozen=True, kw_only=True)
class DepthReport:
    """The dense depth map of one image. Depths are along the optical axis, in world units of its model."""

    image: int
    """Row of `images` in the report."""
    model: int
    known: float
    """Share of the pixels with a depth that other views agree with."""
    near: float | None
    median: float | None
    far: float | None
    """2nd, 50th and 98th percentile of these depths."""
    median_confidence: float | None
    """Number of views that agree with a known pixel, this one included, each weighted by its correlation."""


@dataclass(frozen=True, kw_only=True)
class DepthFigures:
    """The depth maps of a run."""

    entry: str
    """Digest of their pictures, which lie in dense/pictures.safetensors."""
    limits: tuple[tuple[float, float], ...]
    """Depths at the ends of the colour bar, for each model."""
    images: tuple[DepthReport, ...]


@dataclass(frozen=True, kw_only=True)
class SolverReport:
    """How a stage of an alignment went."""

    method: str
    status: str
    iterations: int
    cost: tuple[float, ...]
    """What was minimised, at up to 100 iterations spread evenly over the run."""


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """The alignment of one connected component, before any bundle adjustment."""

    images: int
    unconfirmed_share: float
    """Share of the pairs of its images that no adjusted model holds in about the same relative pose."""
    coarse_iterations: int
    coarse_loss: float | None
    coarse_status: str
    fine_iterations: int
    fine_loss: float | None
    fine_status: str
    solver: dict[str, SolverReport]
    """By stage."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """A run that went on from finished models."""

    command: str
    """extend or merge."""
    sources: tuple[str, ...]
    """What it was given: folders, lists and files of photographs, or the output folders of other runs."""
    added: int
    """Photographs that the model had not known."""
    kept_poses: bool
    """Whether poses and intrinsics stayed as they were."""

    @staticmethod
    def of(entry: Mapping[str, Any]) -> "Extension":
        """From JSON that has been checked."""
        return Extension(**{**entry, "sources": tuple(entry["sources"])})


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything in report.json."""

    schema_version: int = SCHEMA_VERSION
    versions: dict[str, str]
    seed: int
    config: dict[str, Any]
    """The settings of the run."""
    changed: tuple[str, ...]
    """Those that are not the default, as dotted names."""
    image_root: str
    """Folder that the names of images are relative to."""
    images: tuple[ImageReport, ...]
    videos: tuple[VideoFrames, ...] = ()
    """Whose frames are among the images, and how they were chosen."""
    extensions: tuple[Extension, ...] = ()
    """Runs since the first one, if this is no run from photographs alone; the last one is this run."""
    pairs: dict[str, int]
    """Number of pairs by what the front end found."""
    belief: dict[str, int] = field(default_factory=dict)
    """Number of pairs that match by what other pairs say about them: confirmed, unconfirmed or contradicted."""
    pair_list: PairColumns
    pair_search: PairSearch | None = None
    """How the pairs were found; None: a scene graph says which."""
    alignments: tuple[AlignmentReport, ...]
    models: tuple[ModelReport, ...]
    depth: DepthFigures | None
    """None: no depth maps were made."""
    stages: tuple[StageTiming, ...]
    cluster: tuple[NodeShare, ...] = ()
    """What each machine of a cluster made of the stages."""
    warnings: tuple[str, ...]
    weights: dict[str, str] | None
    """Trained weights that were used, their terms, and how the user accepted them."""

    @property
    def num_registered(self) -> int:
        return sum(image.model is not None for image in self.images)
