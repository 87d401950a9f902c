"""What matches the depth of views for the store, in this process or in a worker elsewhere.

Pictures and cameras of all views are the same for every worker, and small as the photographs are read where the work is
done. The depth that a view starts from is in no store and comes with it: 1.6 MB at 512 x 384.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from anchorsfm.dense.pinhole import Pinhole, pinhole_rgb
from anchorsfm.dense.polish import Photo, Polished, polish
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import Store
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.masks import uses
from anchorsfm.stereo.depth_code import decode_log_depth, encode_log_depth
from anchorsfm.stereo.sweep import GridView

KIND = "dense-depth"
"""Of the entries of the store."""
VIEWS_KEPT = 32
"""Pictures, and depth maps, held in memory."""
VIEWS_OF_TASK = 4
"""Most that are sent at a time: what they start from waits in memory until the task is done."""


@dataclass(frozen=True, kw_only=True)
class DepthJob:
    """A view whose depth is to be matched."""

    key: str
    view: int
    others: tuple[int, ...]
    """Views that it is matched with."""
    inverse_depth: Float32[np.ndarray, "h w"]
    """To start from; 0: unknown."""
    weight: Float32[np.ndarray, "h w"]
    """How far that is believed, 0 .. 1."""

    @property
    def unmatched(self) -> Polished:
        """The depth that it starts from, of which nothing is known."""
        return Polished(inverse_depth=self.inverse_depth, correlation=np.zeros_like(self.inverse_depth))


@dataclass(frozen=True, kw_only=True)
class MatchDepth:
    """Matches views of a model."""

    store: Store
    images: ImageSet
    grid: ImageGrid
    pinholes: Sequence[Pinhole]
    """Of every view."""
    cam_from_world: Float[np.ndarray, "view 3 4"]
    _photos: Recent[int, Photo] = field(
        default_factory=lambda: Recent(VIEWS_KEPT), init=False, repr=False, compare=False
    )

    def __call__(self, part: Sequence[DepthJob]) -> None:
        """Raises InputError if a photograph cannot be read."""
        with single_threaded_libraries():
            for job in part:
                if not self.store.has(KIND, job.key):
                    self.matched(job)

    def matched(self, job: DepthJob) -> dict[str, np.ndarray]:
        """The entry of a view, made and saved. Raises InputError if a photograph cannot be read."""
        found = job.unmatched
        if job.others and (job.weight > 0).any():
            others = [self.photo(other) for other in job.others]
            found = polish(self.photo(job.view), others, job.inverse_depth, job.weight)
        entry = encode(found)
        self.store.save(KIND, job.key, entry)
        return entry

    def set_aside(self, job: DepthJob) -> None:
        """Let nothing be known about the depth of a view in this run."""
        self.store.stand_in(KIND, job.key, encode(job.unmatched))

    def photo(self, view: int) -> Photo:
        """Picture and camera of a view. Raises InputError if the photograph cannot be read."""
        return self._photos.get(view, lambda: self._load_photo(view))

    def _load_photo(self, view: int) -> Photo:
        pinhole = self.pinholes[view]
        rgb = pinhole_rgb(self.images, self.grid, pinhole)
        x, y = pinhole.principal_point_px.tolist()
        inside, masked = None if pinhole.is_grid else pinhole.inside(), self._masked(pinhole)
        if masked is not None:
            inside = ~masked if inside is None else inside & ~masked
        return Photo(
            rgb=rgb,
            grid_view=GridView(
                grey=np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8),
                focal_xy=(pinhole.focal_px, pinhole.focal_px),
                principal_point=(x, y),
            ),
            cam_from_world=self.cam_from_world[view],
            inside=inside,
            masked=masked,
        )

    def _masked(self, pinhole: Pinhole) -> Bool[np.ndarray, "h w"] | None:
        """Pixels that the mask of the photograph hides; None: it has no mask."""
        mask = self.images.mask_pixels(pinhole.image)
        if mask is None:
            return None
        use = uses(mask, pinhole.photo_pixels(), self.images.size_wh[pinhole.image])
        return ~use.reshape(pinhole.size_wh[::-1])


def encode(found: Polished) -> dict[str, np.ndarray]:
    """Logarithms of depth in 65534 steps (0: unknown), correlation in steps of 1/255."""
    known = found.inverse_depth > 0
    log_depth = -np.log(np.where(known, found.inverse_depth, 1)).astype(np.float64)
    low, high = (float(log_depth[known].min()), float(log_depth[known].max())) if known.any() else (0.0, 0.0)
    return {
        "depth": np.where(known, encode_log_depth(log_depth, low, high, first=1), 0).astype(np.uint16),
        "range": np.array([low, high]),
        "correlation": np.rint(np.clip(found.correlation, 0, 1) * 255).astype(np.uint8),
    }


def decode(arrays: dict[str, np.ndarray]) -> Polished:
    """What `encode` made an entry of, rounded."""
    depth = np.exp(decode_log_depth(arrays["depth"], arrays["range"], first=1))
    return Polished(
        inverse_depth=np.where(arrays["depth"] > 0, 1 / depth, 0).astype(np.float32),
        correlation=arrays["correlation"].astype(np.float32) / np.float32(255),
    )
