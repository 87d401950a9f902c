"""The mapper of this system: a sparse global alignment of every connected component (docs/method.md, Mappers)."""

from dataclasses import replace

import numpy as np

from anchorsfm.align.scene import align_scene, long_side_px
from anchorsfm.mapping.base import DepthInput, Mapped, MapperInput, MapperSettings, Start, known_held
from anchorsfm.mapping.start_cameras import start_model
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.edit import with_poses
from anchorsfm.scene.progress import Progress


def map_aligned(given: MapperInput, settings: MapperSettings, progress: Progress) -> Mapped:
    """One start per component, in original pixels; known poses and intrinsics are held.

    Raises ValueError if nothing is known about depth.
    """
    depth = given.depth
    if depth is None:
        raise ValueError("the alignment works on predictions of depth, and there are none")
    every = np.arange(given.images.num_images)
    known = dict(zip(every.tolist(), depth.known.for_alignment(every, depth.grid, settings.focal_px), strict=True))
    alignments = align_scene(
        depth.scene,
        settings.align,
        camera_index=given.images.camera_index,
        long_side_px=long_side_px(given.images, depth.grid),
        known={image: what for image, what in known.items() if what is not None},
        store=settings.store,
        predictions=depth.digest,
        progress=progress,
    )
    starts = tuple(_start(alignment, given, depth, settings.camera_model) for alignment in alignments)
    return Mapped(starts=starts, reasons={}, alignments=alignments)


def _start(alignment: AlignmentResult, given: MapperInput, depth: DepthInput, camera_model: str) -> Start:
    known = depth.known
    model = start_model(alignment, given.images, depth.grid, camera_model, known=known.cameras)
    model = with_poses(model, known.exact_poses(alignment))
    held = replace(
        known_held(model, given),
        pose=alignment.pose_known,
        positions=known.position_priors(model.image_index),
        rotations=known.rotation_priors(model.image_index),
    )
    return Start(model=model, held=held)
