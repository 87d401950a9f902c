"""The photographs of a run and the grid a front end looks at them on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.scene.masks import ImageMask
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.rigs import Rigs

CameraMode = Literal["auto", "single", "per-folder", "per-image"]
"""Which images share a camera: `auto` same size and EXIF; `single` all; `per-folder` all of one size in a folder."""


@dataclass(frozen=True, kw_only=True)
class SkippedImage:
    """A file that was found but not used."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the files below a folder were fetched from."""

    folder: Path
    """Absolute."""
    url: str
    """Below it they have the same names."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Photographs, upright (EXIF orientation applied), with what is known about their cameras.

    Pixels are COLMAP's: (0.5, 0.5) is the centre of the top-left pixel of the upright image.
    """

    root: Path
    """Folder that `names` are relative to."""
    names: tuple[str, ...]
    """Path of each image relative to `root`, with '/' on every platform."""
    size_wh: Int[np.ndarray, "image 2"]
    """Upright width and height in original pixels."""
    camera_index: Int[np.ndarray, "image"]
    """Row of the camera each image was taken with: 0 .. num_cameras-1, every row used."""
    focal_prior_px: Float[np.ndarray, "image"]
    """Focal length in original pixels from EXIF or the user; NaN where unknown."""
    focal_deviation: Float[np.ndarray, "image"] | None = None
    """Standard deviation, as a share, of those that the adjustment takes for priors; NaN, or None, for others."""
    digests: tuple[str, ...]
    """SHA-256 of each file's bytes: identity for the cache; compared whenever pixels are read."""
    distortion_prior: Float[np.ndarray, "image 2"] | None = None
    """Lens distortion (k1, k2 of `Distortion`) from the user; rows of NaN, or None, where unknown."""
    prior_is_known: Bool[np.ndarray, "image"] | None = None
    """Whether focal length and distortion are those of a known model; None: nowhere."""
    focal_is_exact: Bool[np.ndarray, "image"] | None = None
    """Whether the front end takes a focal length as it is given; None: as its settings say."""
    taken_s: Float[np.ndarray, "image"] | None = None
    """When each was taken, in seconds by its camera's own clock; NaN, or None, where unknown."""
    geo: GeoPositions | None = None
    """Where each was taken; None: nowhere recorded."""
    down: Float[np.ndarray, "image 3"] | None = None
    """Unit vectors down in the frames of the cameras, as the accelerometers of phones recorded them; NaN, or None,
    where unknown."""
    is_unnamed: Bool[np.ndarray, "image"] | None = None
    """Whether which images share a camera was decided by their sizes alone, as nothing names it; None: nowhere."""
    may_be_zoomed: Bool[np.ndarray, "image"] | None = None
    """Whether nothing says which focal length it was taken with, so that it may have another one than the others that
    share its camera; None: nowhere."""
    quarter_turns: Int[np.ndarray, "image"] | None = None
    """Quarter turns, counter-clockwise, by which pictures are read turned against how they are stored (and EXIF says):
    `size_wh` and all pixels are those of the turned ones. None: nowhere."""
    masks: tuple[ImageMask | None, ...] | None = None
    """What of each is looked at; None, for one or all: the whole photograph."""
    rigs: Rigs | None = None
    """Which of them were taken together by cameras that are fixed to each other; None: nothing is known of that."""
    origins: tuple[Origin, ...] = ()
    """Where files are read from that are not where they were, as on another machine."""
    skipped: tuple[SkippedImage, ...] = ()
    """Files that were found but could not be read."""

    def __getstate__(self) -> dict[str, Any]:
        """For a process that may run in another folder."""
        return {**self.__dict__, "root": self.root.absolute()}

    @property
    def num_images(self) -> int:
        return len(self.names)

    @property
    def num_cameras(self) -> int:
        return int(self.camera_index.max()) + 1 if len(self.camera_index) else 0

    @cached_property
    def contents(self) -> tuple[str, ...]:
        """Identity of what is looked at of each photograph: its digest, and that of its mask."""
        if self.masks is None:
            return self.digests
        return tuple(
            digest if mask is None else f"{digest} {hashlib.sha256(mask.packed).hexdigest()} {mask.size_wh}"
            for digest, mask in zip(self.digests, self.masks, strict=True)
        )

    def path(self, image: int) -> Path:
        return self.root / self.names[image]

    def origin(self, path: Path) -> tuple[str, str] | None:
        """The URL that a file was fetched from, and its name there; None if it was not."""
        absolute = path.absolute()
        of = next((origin for origin in self.origins if absolute.is_relative_to(origin.folder)), None)
        return None if of is None else (of.url, absolute.relative_to(of.folder).as_posix())

    def mask_pixels(self, image: int) -> Bool[np.ndarray, "h w"] | None:
        """True where a photograph, as it is read, is looked at; None: everywhere."""
        mask = None if self.masks is None else self.masks[image]
        turns = 0 if self.quarter_turns is None else int(self.quarter_turns[image])
        return None if mask is None else mask.pixels(turns)

    def select(self, kept: Int[np.ndarray, "kept"] | list[int], skipped: Sequence[SkippedImage] = ()) -> "ImageSet":
        """The set without some of its photographs, which are among the skipped ones."""

        def rows(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[kept]

        return replace(
            self,
            names=tuple(self.names[k] for k in kept),
            size_wh=self.size_wh[kept],
            camera_index=np.unique(self.camera_index[kept], return_inverse=True)[1],
            focal_prior_px=self.focal_prior_px[kept],
            focal_deviation=rows(self.focal_deviation),
            digests=tuple(self.digests[k] for k in kept),
            distortion_prior=rows(self.distortion_prior),
            prior_is_known=rows(self.prior_is_known),
            focal_is_exact=rows(self.focal_is_exact),
            taken_s=rows(self.taken_s),
            geo=None if self.geo is None else self.geo.select(kept),
            down=rows(self.down),
            is_unnamed=rows(self.is_unnamed),
            may_be_zoomed=rows(self.may_be_zoomed),
            quarter_turns=rows(self.quarter_turns),
            masks=None if self.masks is None else tuple(self.masks[k] for k in kept),
            rigs=None if self.rigs is None else self.rigs.select(kept),
            skipped=(*self.skipped, *skipped),
        )


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Radial lens distortion of every image about its centre, as a division model.

    The point at c from the image centre, in units of half the image diagonal, is at c / (1 + k1 |c|^2 + k2 |c|^4) in
    the picture that a pinhole camera of the same focal length takes (Fitzgibbon, "Simultaneous linear estimation of
    multiple view geometry and lens distortion", CVPR 2001, with a second term). Negative coefficients: barrel.
    """

    image_wh: Int[np.ndarray, "image 2"]
    """Size of every image in original pixels."""
    coefficient: Float[np.ndarray, "image 2"]
    """k1, k2 of every image; 0, 0: no distortion."""

    def undistort(self, image: int, xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        """Original pixels to those of the pinhole picture."""
        centre, radius = self._frame(image)
        offset = (xy - centre) / radius
        square = (offset**2).sum(axis=1, keepdims=True)
        k1, k2 = self.coefficient[image]
        return centre + offset * (radius / (1 + k1 * square + k2 * square**2))

    def distort(self, image: int, xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        """The inverse of `undistort`; points that no pixel maps to lie at the model's limit, outside the image.

        The radius s in the photograph satisfies s = r (1 + k1 s^2 + k2 s^4) for a radius r in the pinhole picture:
        Newton's method from a table.
        """
        centre, radius = self._frame(image)
        offset = (xy - centre) / radius
        wanted = np.linalg.norm(offset, axis=1)
        k1, k2 = self.coefficient[image]
        table = np.linspace(0, 2, 2001)
        rising = (1 - k1 * table**2 - 3 * k2 * table**4 > 0) & (1 + k1 * table**2 + k2 * table**4 > 1e-3)
        table = table[: int(np.argmin(rising)) if not rising.all() else len(table)]
        found = np.interp(wanted, table / (1 + k1 * table**2 + k2 * table**4), table)
        for _ in range(5):
            value = found - wanted * (1 + k1 * found**2 + k2 * found**4)
            slope = 1 - wanted * (2 * k1 * found + 4 * k2 * found**3)
            found = np.clip(found - value / np.where(slope > 1e-6, slope, np.inf), 0, table[-1])
        return centre + offset * (found / np.maximum(wanted, 1e-12))[:, None] * radius

    def _frame(self, image: int) -> tuple[Float[np.ndarray, "2"], float]:
        """Image centre and half the diagonal in original pixels."""
        return self.image_wh[image] / 2, float(np.hypot(*self.image_wh[image])) / 2


@dataclass(frozen=True, kw_only=True)
class ImageGrid:
    """The grid a front end predicts on: the image without its distortion, resampled and cropped.

    xy_grid = scale * undistorted xy_image + offset, all in COLMAP pixels.
    """

    size_wh: Int[np.ndarray, "image 2"]
    scale: Float[np.ndarray, "image 2"]
    offset: Float[np.ndarray, "image 2"]
    distortion: Distortion | None = None
    """What the grid is free of; None: nothing, the grid shows the images as they are."""

    def is_distorted(self, image: int) -> bool:
        """Whether the image differs from the grid by more than scaling and cropping."""
        return self.distortion is not None and bool(self.distortion.coefficient[image].any())

    def to_grid(self, image: int, xy_image: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        if self.distortion is not None and self.is_distorted(image):
            xy_image = self.distortion.undistort(image, xy_image)
        return xy_image * self.scale[image] + self.offset[image]

    def to_image(self, image: int, xy_grid: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        xy = (xy_grid - self.offset[image]) / self.scale[image]
        if self.distortion is not None and self.is_distorted(image):
            xy = self.distortion.distort(image, xy)
        return xy
