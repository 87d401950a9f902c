"""The settings of a run: light to import, so that they can be listed and checked before any library loads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro.conf

from anchorsfm.align.config import AlignConfig
from anchorsfm.dense.config import CloudConfig
from anchorsfm.features.config import is_learned
from anchorsfm.frontend import FrontendName
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.mast3r.frontend import Mast3rFrontend
from anchorsfm.io.remote import parse_url
from anchorsfm.mapping.config import (
    DEPTH_MAPPERS,
    GcpConfig,
    GpsMode,
    KnownConfig,
    MapperName,
    RigConfig,
    UpMode,
)
from anchorsfm.observe.config import GraphConfig
from anchorsfm.pairing import parse_prefilter, parse_scene_graph
from anchorsfm.panorama.config import PanoramaConfig
from anchorsfm.run.cluster import parse_cluster
from anchorsfm.scene.images import CameraMode
from anchorsfm.scene.reconstruction import CAMERA_MODELS
from anchorsfm.scene.settings import OneOf, Parsed, Range, Seed, Settings
from anchorsfm.tracks.config import AdjustConfig, SparsifyConfig, SubpixelConfig
from anchorsfm.video.config import VideoConfig


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(Settings):
    """Settings of a run."""

    max_image_size: Annotated[int, Range(64, 65536)] = 1024
    """Long side in pixels at which photographs are looked at; the written model is in original pixels."""
    video: VideoConfig = field(default_factory=VideoConfig)
    """Which frames of videos are used."""
    panorama: PanoramaConfig = field(default_factory=PanoramaConfig)
    """Photographs of 360 degrees, and the views that are cut from them."""
    rig: RigConfig = field(default_factory=RigConfig)
    """Cameras that are fixed to each other."""
    camera_mode: CameraMode = "auto"
    """Which images share a camera. auto: same size and same EXIF data; without EXIF, same size where a folder (or a
    scene of a mixed one) has at most two."""
    focal_px: Annotated[float | None, Range(1, 10_000_000)] = None
    """Focal length of all images in original pixels, instead of EXIF or an estimate. It is kept, unless
    --focal-deviation says how far it may be off: only poses, points, principal points and distortions are adjusted."""
    focal_deviation: Annotated[float | None, Range(0.0001, 1)] = None
    """Standard deviation, as a share, of the focal length that --focal-px or EXIF gives. None: --focal-px is kept, EXIF
    is taken to be right within 1.5 to 3 %, by how the camera says it."""
    scene_graph: Annotated[str, Parsed(parse_scene_graph)] = "auto"
    """Pairs of images to look at: auto, complete, swin-K, logwin-K, oneref-I, retrieval-A-K, pairs:FILE. Of up to 30
    images auto takes every pair; of more, those that similarity and the pairs found so far propose."""
    prefilter: Annotated[str | None, Parsed(parse_prefilter)] = None
    """Drop pairs further apart than N in the sequence of names: seqN, or cycN for a closed loop."""
    masks: Path | None = None
    """Folder with masks, NAME.png for the photograph NAME or for its name without extension: black is ignored. Any size
    of the photograph's aspect will do; photographs without a mask count as a whole."""
    mask: Path | None = None
    """Mask for all photographs, for what is at one place in all of them: a bonnet, the legs of a drone."""
    sky_masks: bool = False
    """Ignore sky, found by its smoothness, for photographs of the outdoors whose sky is up: a pale wall or a ceiling
    along the upper border may be taken for it. OUT/masks shows what was ignored."""
    alpha_masks: bool = True
    """Ignore transparent pixels of photographs that have any."""
    gps: GpsMode = "auto"
    """What positions recorded in photographs (EXIF, XMP of DJI) do. check: they are compared with the model; align:
    they give it scale, north and height; prior: they also constrain the adjustment; auto: prior where they agree with
    the model, otherwise check; off: they are not looked at."""
    up: UpMode = "auto"
    """Where up is; models are turned so that z points there. auto: what phones recorded (iPhones do), or else how
    the cameras were held, or flew; plane: the
    largest plane of points that is about level; manhattan: the directions that most surfaces face; off: the frame
    stays any. Models in the frame of recorded positions or given poses are not turned."""
    epsg: Annotated[int | None, Range(1024, 32767)] = None
    """Coordinate reference system, by its EPSG number, in which camera positions are also written to georeference.json,
    such as 32632."""
    gcp: GcpConfig = field(default_factory=GcpConfig)
    """Ground control points."""
    similarity: Path | None = None
    """Matrix (image, image) of image similarities, as a .npy file in the order of the names, for auto and
    retrieval-A-K; otherwise they are found from the keypoints."""
    frontend: FrontendName = "classical"
    """What predicts depth and matches of a pair. classical: the embedded front end; mast3r: a trained network (see
    --weights)."""
    classical: ClassicalFrontend = field(default_factory=ClassicalFrontend)
    """The embedded front end: no weights, no GPU, unless keypoints are a network's."""
    mast3r: Mast3rFrontend = field(default_factory=Mast3rFrontend)
    """The MASt3R or DUSt3R network."""
    graph: GraphConfig = field(default_factory=GraphConfig)
    """How predictions of pairs are condensed into canonical views and a scene graph."""
    align: AlignConfig = field(default_factory=AlignConfig)
    """Global alignment of all images."""
    mapper: MapperName = "align"
    """What finds the poses. align: the global alignment; tracks: a good pair, then image after image; incremental,
    global: COLMAP's mappers on our matches; known: nothing, all poses are those of --known.model."""
    camera_model: Annotated[str, OneOf("auto", *CAMERA_MODELS)] = "auto"
    """COLMAP camera model: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, OPENCV_FISHEYE and others; auto: for
    each camera the simplest one that predicts observations held out of the adjustment."""
    sparsify: SparsifyConfig = field(default_factory=SparsifyConfig)
    """Which matches become keypoints of tracks."""
    refine_keypoints: Literal["auto", "on", "off"] = "auto"
    """Refine observations in the photographs at full size. auto: those of networks (matches on a grid, learned
    keypoints), and those of SIFT in models of up to 4 views."""
    subpixel: SubpixelConfig = field(default_factory=SubpixelConfig)
    """Refinement of observations in the photographs, see --refine-keypoints."""
    adjust: AdjustConfig = field(default_factory=AdjustConfig)
    """Triangulation and bundle adjustment."""
    bundle_adjustment: Annotated[bool, tyro.conf.Suppress] = True
    """Adjust poses, intrinsics and points. False: points are triangulated with the poses that the mapper found."""
    keep_database: bool = False
    """Write keypoints and verified matches to OUT/database.db, for COLMAP's own tools to go on from."""
    keep_cache: bool = True
    """Keep OUT/cache, with which the same command goes on after an interruption and other settings start from what
    they share. Off removes it once there is a result."""
    keep_descriptors: bool = True
    """Keep the SIFT descriptors of every model's points in OUT/localisation (up to 0.6 MB an image), with which
    anchorsfm localise places new photographs."""
    known: KnownConfig = field(default_factory=KnownConfig)
    """Known poses and intrinsics."""
    dense: Annotated[bool | None, tyro.conf.Suppress] = None
    """Write a dense cloud of each model to OUT/dense. None: for sets of up to 200 images."""
    cloud: CloudConfig = field(default_factory=CloudConfig)
    """The dense cloud, and what is written beside it."""
    ray: Annotated[str | None, Parsed(parse_cluster)] = None
    """Compute features, matches, poses of pairs and dense depth on many machines by Ray: auto (the cluster that this
    machine belongs to), HOST:PORT, or local (processes of this machine). All of them must see the photographs, and OUT
    unless there is a --cache-url, under the same paths. The result has the same bits."""
    cache_url: Annotated[str | None, Parsed(parse_url)] = None
    """Keep what is in OUT/cache at a URL too, such as s3://bucket/folder, where other runs and machines find it: with
    --ray they then need not see OUT."""
    seed: Seed = 0
    """Seed of all random sampling. Equal seeds and equal input give equal output, bit for bit, on one machine."""

    def check_together(self) -> None:
        if self.frontend == "classical" and self.needs_depth and not self.classical.dense.enabled:
            problem = (
                "the alignment and dense clouds are made of depth: leave it on, or use another mapper without a cloud"
            )
            raise self.refused("classical.dense.enabled", problem)

    @property
    def kept_focal_px(self) -> float | None:
        """The focal length of all images that is kept; None: those of most are adjusted."""
        return self.focal_px if self.focal_deviation is None else None

    @property
    def needs_depth(self) -> bool:
        """Whether anything is made of the front end's depth, or may be."""
        return self.mapper in DEPTH_MAPPERS or self.dense is not False

    def refines_keypoints(self, *, from_grid: bool) -> bool:
        """Whether observations are refined; `from_grid`: they come from a network's grid, not from a detector."""
        coarse = from_grid or is_learned(self.classical.features.first_detector)
        return self.refine_keypoints == "on" or (self.refine_keypoints == "auto" and coarse)
