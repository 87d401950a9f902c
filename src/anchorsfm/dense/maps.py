"""Depth maps of a model, matched with the adjusted cameras and cleaned against each other, one view at a time.

Two passes. The first matches every view with its neighbours (`polish`) and puts the result into the store, rounded; it
is the slow one, and an interrupted run goes on where it was. The second compares every view with its neighbours
(`consistency`), looks for planes (`surface`) and keeps what is on them. Only the views at hand are in memory.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from anchorsfm.dense.config import CloudConfig
from anchorsfm.dense.consistency import Agreement, Witness, compare
from anchorsfm.dense.matching import KIND, VIEWS_KEPT, VIEWS_OF_TASK, DepthJob, MatchDepth, decode
from anchorsfm.dense.neighbours import choose_neighbours
from anchorsfm.dense.pinhole import Pinhole, make_pinhole, to_pinhole
from anchorsfm.dense.polish import Polished, texture
from anchorsfm.dense.surface import fit_planes, normals, on_surface
from anchorsfm.dense.views import DenseView, dense_view
from anchorsfm.geometry.links import near_each_other
from anchorsfm.geometry.pixels import plane_coordinates
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import Store, digest
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.edit import select_views
from anchorsfm.scene.executor import Work
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction

MATCHING_VERSION = 1
"""Raise when `polish` changes what it finds: stored depth is then made anew."""
KNOWN_CONFIDENCE, SURE_CONFIDENCE = 0.5, 4.0
"""Canonical confidence from which a depth is a place to start from, and from which it is certain."""
SURE_CORRELATION = 0.7
MIN_TEXTURE = 0.5
"""Below, correlation is uninformative; depth is believed where the front end is certain, with this weight."""
MIN_FACING = 0.1
"""Cosine between normal and ray of the most slanted surface that is kept."""
MIN_REGION_PX = 60
"""Connected regions of a depth map with fewer pixels are dropped, on maps of `REFERENCE_AREA_PX`."""
REFERENCE_AREA_PX = 512 * 384
REGION_LOG_STEP = 0.02


@dataclass(frozen=True, kw_only=True)
class CleanView:
    """The cleaned depth map of one image."""

    image: int
    """Index in the ImageSet."""
    view: DenseView
    """Depth in units of the model on a pinhole picture of the image; confidence is 0 where a point was dropped, else
    the number of views that agree on it, this one included, each weighted by its correlation (0 .. 1)."""
    normal: Float32[np.ndarray, "h w 3"]
    """Unit vectors in the world frame, towards the camera."""
    rgb: UInt8[np.ndarray, "h w 3"]


class DepthMaps:
    """The depth maps of one model. Iterating gives every view once, cleaned; `len` is the number of views."""

    def __init__(
        self,
        depths: AlignmentResult,
        model: Reconstruction,
        scene: ObservedScene,
        images: ImageSet,
        grid: ImageGrid,
        config: CloudConfig,
        store: Store,
        settled: Collection[int] = (),
    ) -> None:
        """`depths` are those of `rescale.onto_model`: a depth map for views of `model`, with its poses and scale.

        `settled`: images, by index in the ImageSet, whose depth stays as it was last matched with the same camera,
        whatever their neighbours are now, if the store has it.
        """
        self.depths, self.model, self.scene, self.images, self.grid = depths, model, scene, images, grid
        self.config = config
        self._store, self._notes = store, store.local
        self._settled = frozenset(settled)
        rows = np.flatnonzero(np.isin(model.image_index, depths.image_index))
        part = select_views(model, rows)
        assert np.array_equal(part.image_index, depths.image_index)
        self.neighbours = choose_neighbours(part, config.num_neighbours)
        self._pinholes = [self._pinhole(model, view) for view in range(len(part.image_index))]
        self.origin = np.median(model.points, axis=0) if len(model.points) else np.zeros(3)
        """A place in the middle of the model."""
        self._matcher = MatchDepth(
            store=store, images=images, grid=grid, pinholes=self._pinholes, cam_from_world=depths.cam_from_world
        )
        self._jobs: Recent[int, DepthJob] = Recent(1)
        self._keys: dict[int, str] = {}
        kept = VIEWS_KEPT if store.keeps else len(part.image_index)
        self._matched: Recent[int, Polished] = Recent(kept)

    def __len__(self) -> int:
        return len(self._pinholes)

    def match(self, progress: Progress = SILENT) -> None:
        """Match all views that the store does not have yet."""
        self._match_ahead(progress)
        with progress.stage("matching depth", len(self)) as advance:
            for view in range(len(self)):
                self._polished(view)
                advance(1)

    def _match_ahead(self, progress: Progress) -> None:
        """Let the executor of the store match views, in an order in which those with the same neighbours are near each
        other."""
        links = [(view, other) for view, others in enumerate(self.neighbours) for other in others.tolist()]
        order = near_each_other(len(self), np.array(links, np.int64).reshape(-1, 2)).tolist()
        work = Work(
            tool=self._matcher,
            part=lambda rows: [self._job(order[row]) for row in rows],
            is_done=lambda row: self._store.has(KIND, self._key(order[row])),
            name=lambda row: self.images.names[self._pinholes[order[row]].image],
            set_aside=lambda row: self._matcher.set_aside(self._job(order[row])),
            max_rows=VIEWS_OF_TASK,
        )
        self._store.fill("matching depth", work, len(self), progress)

    def __iter__(self) -> Iterator[CleanView]:
        for view in range(len(self)):
            yield self.clean(view)

    def clean(self, view: int) -> CleanView:
        """The cleaned depth map of one view."""
        own, photo = self._witness(view), self._matcher.photo(view)
        others = [self._witness(int(other)) for other in self.neighbours[view]]
        agreement = compare(own, others, self.config)
        inverse, valid = agreement.inverse_depth, self._agreed(view, own, agreement)
        planes = fit_planes(inverse, valid, photo.rgb)
        valid = on_surface(inverse, planes, valid, photo.rgb, photo.masked)
        pinhole = self._pinholes[view]
        normal = normals(planes, pinhole.focal_px, pinhole.principal_point_px)
        valid &= _facing(normal, pinhole) > MIN_FACING
        valid = _large_regions(inverse, valid)
        cleaned = DenseView(
            depth=(1 / inverse).astype(np.float32),
            confidence=np.where(valid, agreement.weight, 0).astype(np.float32),
            cam_from_world=self.depths.cam_from_world[view],
            focal_px=pinhole.focal_px,
            principal_point_px=pinhole.principal_point_px,
        )
        rotation = cleaned.cam_from_world[:, :3].astype(np.float32)
        return CleanView(image=pinhole.image, view=cleaned, normal=normal @ rotation, rgb=photo.rgb)

    def _agreed(self, view: int, own: Witness, agreement: Agreement) -> Bool[np.ndarray, "h w"]:
        needed = min(self.config.min_views, max(len(self.neighbours[view]), 1))
        enough = (agreement.agreeing >= needed) & (agreement.agreeing > agreement.contradicting)
        certain = (self._front_end(view).confidence > SURE_CONFIDENCE) & (own.polished.correlation > SURE_CORRELATION)
        unopposed = certain & (agreement.agreeing >= self.config.min_views_certain) & (agreement.contradicting == 0)
        return (enough | unopposed) & (own.polished.correlation > 0)

    def _witness(self, view: int) -> Witness:
        """A view whose correlation is 0 where its depth is not to be believed."""
        matched, photo = self._polished(view), self._matcher.photo(view)
        blank = texture(photo) < MIN_TEXTURE
        sure = blank & (self._front_end(view).confidence > SURE_CONFIDENCE)
        believed = ~blank & (matched.correlation >= self.config.min_correlation)
        trust = np.where(believed, matched.correlation, np.where(sure, np.float32(MIN_TEXTURE), 0))
        shown = matched.inverse_depth > 0 if photo.inside is None else (matched.inverse_depth > 0) & photo.inside
        trust = np.where(shown, trust, 0).astype(np.float32)
        return Witness(photo=photo, polished=replace(matched, correlation=trust))

    def _match(self, view: int) -> Polished:
        """From the store, or matched now; rounded either way, so that both have the same bits."""
        key = self._key(view)
        arrays = self._store.load(KIND, key)
        if arrays is None:
            job = self._job(view)
            key, arrays = job.key, self._matcher.matched(job)
        if self._store.current(KIND, key) == key:  # not set aside
            noted = {"key": np.frombuffer(key.encode(), np.uint8)}
            self._notes.save("dense-depth-of-view", self._last_key(view), noted)
        return decode(arrays)

    def _key(self, view: int) -> str:
        """Of the depth of a view in the store."""
        if view not in self._keys:
            self._keys[view] = self._settled_key(view) or self._job(view).key
        return self._keys[view]

    def _settled_key(self, view: int) -> str | None:
        """Of the depth that a view keeps, if there is such."""
        if self._pinholes[view].image not in self._settled:
            return None
        found = self._notes.load("dense-depth-of-view", self._last_key(view))
        key = None if found is None else bytes(found["key"]).decode()
        return key if key is not None and self._store.has(KIND, key) else None

    def _last_key(self, view: int) -> str:
        """Of the note about how a view was last matched."""
        return digest("last dense depth", MATCHING_VERSION, self._camera_digest(view, pose_bits=np.float32))

    def _job(self, view: int) -> DepthJob:
        return self._jobs.get(view, lambda: self._make_job(view))

    def _make_job(self, view: int) -> DepthJob:
        others = tuple(self.neighbours[view].tolist())
        start = self._front_end(view)
        known = (start.depth > 0) & (start.confidence > KNOWN_CONFIDENCE)
        key = digest(
            "dense depth",
            MATCHING_VERSION,
            [self._camera_digest(k) for k in (view, *others)],
            [start.depth, start.confidence],
        )
        return DepthJob(
            key=key,
            view=view,
            others=others,
            inverse_depth=np.where(start.depth > 0, 1 / np.maximum(start.depth, 1e-12), 0).astype(np.float32),
            weight=np.where(known, np.minimum(start.confidence / SURE_CONFIDENCE, 1), 0).astype(np.float32),
        )

    def _camera_digest(self, view: int, pose_bits: type[np.floating] = np.float64) -> str:
        """Of a picture and its camera. Poses from a file have not all bits of those that were written to it."""
        pinhole = self._pinholes[view]
        return digest(
            self.images.contents[pinhole.image],
            pinhole,
            self.depths.cam_from_world[view].astype(pose_bits),
            [self.grid.scale[pinhole.image], self.grid.offset[pinhole.image]],
        )

    def _front_end(self, view: int) -> DenseView:
        canonical = self.scene.views[self._pinholes[view].image]
        assert canonical is not None
        found = dense_view(self.depths, view, canonical, self.scene.config.subsample)
        return to_pinhole(found, self._pinholes[view], self.grid)

    def _pinhole(self, model: Reconstruction, view: int) -> Pinhole:
        image = int(self.depths.image_index[view])
        camera = model.cameras[int(model.camera_index[np.flatnonzero(model.image_index == image)[0]])]
        focal_px, centre = float(self.depths.focal_px[view]), self.depths.principal_point_px[view]
        return make_pinhole(image, camera, focal_px, centre, self.grid)

    def _polished(self, view: int) -> Polished:
        return self._matched.get(view, lambda: self._match(view))


def _facing(normal: Float32[np.ndarray, "h w 3"], pinhole: Pinhole) -> Float[np.ndarray, "h w"]:
    """Cosine of the angle between the normal and the way back to the camera."""
    x, y = plane_coordinates(pinhole.size_wh, (pinhole.focal_px, pinhole.focal_px), pinhole.principal_point_px)
    along = normal[..., 0] * x + normal[..., 1] * y + normal[..., 2]
    return -along / np.sqrt(1 + x**2 + y**2)


def _large_regions(
    inverse_depth: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Valid pixels in connected regions without jumps that are not tiny."""
    step = 100
    levels = np.log(np.maximum(inverse_depth, 1e-12))
    low = float(levels[valid].min()) if valid.any() else 0.0
    quantised = np.clip((levels - low) * (step / REGION_LOG_STEP), 0, 32000).astype(np.int16)
    quantised[~valid] = -1
    cv2.filterSpeckles(quantised, -1, int(MIN_REGION_PX * valid.size / REFERENCE_AREA_PX), step)
    return quantised >= 0
