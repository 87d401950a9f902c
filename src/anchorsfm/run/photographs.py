"""The first stage: photographs that can be used, and what is known about their cameras."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from anchorsfm.colmap.sensors import sensor_width_mm
from anchorsfm.io.images import load_image_set, with_cameras_of_scenes
from anchorsfm.io.masks import with_masks
from anchorsfm.io.repeats import mirrored_copies, small_pictures, without_repeated_files, without_repeated_views
from anchorsfm.mapping.known import KnownCameras, read_known
from anchorsfm.masking.sky import sky_of_photographs
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.panoramas import CutPanoramas, with_view_rigs
from anchorsfm.run.rigs import with_rigs_of
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera

_FOCAL_OVER_LONG_SIDE = (0.1, 100.0)
"""Between a fisheye and a telescope."""


def load_photographs(
    source: Path | list[Path],
    config: PipelineConfig,
    folder: RunFolder,
    progress: Progress,
    panoramas: CutPanoramas | None = None,
    *,
    root: Path | None = None,
    num_settled: int = 0,
) -> tuple[ImageSet, KnownCameras]:
    """The photographs, each once, with known focal lengths and distortions as priors; and all that is known.

    Names are relative to `root` where all lie below it. The first `num_settled` are kept, whatever view they repeat.

    Raises InputError if they cannot be used, lie in the output folder, or do not fit what is said about them.
    """
    images = load_image_set(
        source,
        camera_mode=config.camera_mode,
        focal_px=config.focal_px,
        masks=config.masks,
        reads_positions=config.gps != "off",
        root=root,
        sensor_widths=sensor_width_mm,
        progress=progress,
    )
    images = replace(images, origins=folder.origins)
    folder.require_outside(images.path(k) for k in range(images.num_images))
    of_views = None if panoramas is None else panoramas.view_masks(images)
    sky = sky_of_photographs(images, config.classical.workers.resolve(), progress) if config.sky_masks else None
    images = with_masks(
        images, config.masks, config.mask, alpha=config.alpha_masks, given=of_views, found=sky, progress=progress
    )
    images = _without_repeats(images, config, num_settled, progress)
    if images.num_images < 2:
        raise InputError(f"found one usable image in {images.root} ({images.names[0]}): at least two are needed")
    _require_plausible_focal(config, images)
    images = _with_focal_deviation(images, config)
    if panoramas is not None:
        if config.rig.file is not None:
            raise config.rig.refused("file", "rigs and panoramas of 360 degrees do not go together: use one of them")
        views = with_view_rigs(images, panoramas)
        known = _of_rigs(read_known(config.known, views.images), views.cameras, exact=True)
    else:
        views = with_rigs_of(images, config.rig, progress)
        known = _of_rigs(read_known(config.known, views.images), views.cameras, exact=False)
    if views.images.rigs is not None and known.poses:
        raise InputError("known poses and rigs (or panoramas) do not go together: use --known.no-use-poses")
    return known.with_priors(views.images), known


def _of_rigs(known: KnownCameras, cameras: dict[int, Camera], *, exact: bool) -> KnownCameras:
    """With what is given about the cameras of rigs; `exact`: they are kept whatever the settings say."""
    return replace(known, cameras=known.cameras | cameras, exact=frozenset(cameras) if exact else frozenset())


def _with_focal_deviation(images: ImageSet, config: PipelineConfig) -> ImageSet:
    """With the deviation of recorded focal lengths that the settings say; of one that is kept there is none."""
    if config.focal_deviation is None:
        return images
    deviation = np.where(np.isfinite(images.focal_prior_px), config.focal_deviation, np.nan)
    return replace(images, focal_deviation=deviation)


def told_apart(images: ImageSet, scene: Int[np.ndarray, "image"] | None, config: PipelineConfig) -> ImageSet:
    """The photographs, once it is known which of them show the same scene; None: nobody looked.

    Cameras that are known, or that the user says which images share, stay as they are.
    """
    if scene is None or images.rigs is not None or config.camera_mode != "auto" or config.known.model is not None:
        return images
    return with_cameras_of_scenes(images, scene)


def _without_repeats(images: ImageSet, config: PipelineConfig, num_settled: int, progress: Progress) -> ImageSet:
    """Every file and view once; mirrored copies are named, for nobody knows which of them shows the place.

    Views are left as they are where the user speaks of photographs one by one.
    """
    once = without_repeated_files(images)
    small = small_pictures(once, progress)
    if config.known.model is None and config.similarity is None and not config.scene_graph.startswith("pairs:"):
        once = without_repeated_views(once, num_settled, small=small, progress=progress)
    for skipped in once.skipped[len(images.skipped) :]:
        progress.warn(f"skipped {skipped.name}: {skipped.reason}")
    mirrored = mirrored_copies(once, small)
    if mirrored:
        i, j = mirrored[0]
        more = "" if len(mirrored) == 1 else f" (and {len(mirrored) - 1} more such pairs)"
        progress.warn(
            f"{once.names[j]} is {once.names[i]} mirrored{more}: no place looks like both, models that hold them are "
            "wrong; remove the mirrored copies"
        )
    return once


def _require_plausible_focal(config: PipelineConfig, images: ImageSet) -> None:
    """A focal length in other units than pixels ends here, not in a model that makes no sense."""
    low, high = _FOCAL_OVER_LONG_SIDE
    for name, size_wh in zip(images.names, images.size_wh, strict=True) if config.focal_px is not None else ():
        ratio = config.focal_px / size_wh.max()
        if not low <= ratio <= high:
            problem = f"is {ratio:.3g} times the long side of {name} ({size_wh.max()} px)"
            raise config.refused("focal_px", f"{problem}; focal lengths are {low:g} to {high:g} times as long")
