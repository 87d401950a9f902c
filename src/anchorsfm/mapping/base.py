"""What every mapper gets and gives: from matches, or depth too, to first poses (docs/method.md, Mappers).

`mapping.mappers` is the table of the mappers that there are.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.align.config import AlignConfig
from anchorsfm.colmap.bundle import Held
from anchorsfm.io.store import Store
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.coarse import CoarseKeypoints


@dataclass(frozen=True, kw_only=True)
class DepthInput:
    """What the front end said about depth, condensed, and what is known beforehand: for the alignment."""

    scene: ObservedScene
    grid: ImageGrid
    """The grid of the predictions."""
    digest: str
    """Of the predictions."""
    known: KnownCameras


@dataclass(frozen=True, kw_only=True)
class MapperInput:
    """What mappers work on."""

    images: ImageSet
    cameras: tuple[Camera, ...]
    """One per camera of the ImageSet: where the intrinsics start."""
    known_camera: Bool[np.ndarray, "camera"]
    """Cameras whose intrinsics are known and stay."""
    matches: KeypointMatches
    tracks: Tracks
    working_scale: Float[np.ndarray, "image"]
    """Original pixels per pixel of the images that keypoints were found on."""
    depth: DepthInput | None = None
    """None: nothing was predicted but matches."""
    known: KnownCameras | None = None
    """What is known beforehand; None: nothing was looked for."""
    free: KeypointMatches | None = None
    """Matches that were verified without known poses, where `matches` were chosen or found with them: only they are
    evidence on the poses. None: `matches` are."""
    coarse: CoarseKeypoints | None = None
    """Keypoints that are less exact than the others; None: all are of one kind."""


@dataclass(frozen=True, kw_only=True)
class MapperSettings:
    """What a user can set about mappers; each takes what concerns it."""

    align: AlignConfig
    camera_model: str = "auto"
    """COLMAP camera model that intrinsics start with, or auto."""
    focal_px: float | None = None
    """Focal length of all cameras that are not known, original pixels, kept. None: focal lengths are found."""
    seed: int = 0
    num_threads: int = 1
    """Of adjustments on the way. With one, equal input gives equal bits."""
    store: Store
    """Where results are kept that need not be computed again."""
    database: Path | None = None
    """The matches as `mapping.colmap.save_database` wrote them, if it was asked to."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model as a mapper left it: where its adjustment starts from."""

    model: Reconstruction
    held: Held
    """What the adjustment leaves as it is."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What a mapper found."""

    starts: tuple[Start, ...]
    """Models without a common image, the largest first."""
    reasons: dict[int, str]
    """Image index -> why it is in no model, as far as the mapper knows."""
    alignments: tuple[AlignmentResult, ...] = ()
    """That the starts were made from, one each; empty for mappers that work on matches alone."""


class Mapper(Protocol):
    """Finds poses and intrinsics of as many images as hold together."""

    def __call__(self, given: MapperInput, settings: MapperSettings, progress: Progress) -> Mapped: ...


def start_from_model(model: Reconstruction, given: MapperInput) -> Start:
    """A model whose known intrinsics are held."""
    return Start(model=model, held=known_held(model, given))


def known_held(model: Reconstruction, given: MapperInput) -> Held:
    """Holds the known intrinsics of a model, and no poses."""
    rows = np.unique(given.images.camera_index[model.image_index])
    return replace(Held.nothing(model), camera=given.known_camera[rows])
