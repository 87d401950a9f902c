"""Before the photographs are read: views of the panoramas among them, and the rigs that the views are."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from anchorsfm.colmap.cameras import make_camera
from anchorsfm.io.layout import Layout
from anchorsfm.io.listing import find_photographs
from anchorsfm.io.mask_files import mask_file, without_masks
from anchorsfm.io.masks import both_masks, read_mask, require_aspect
from anchorsfm.panorama.projection import directions, focal_px
from anchorsfm.panorama.recognise import Panorama, recognise
from anchorsfm.panorama.record import PanoramaViews
from anchorsfm.panorama.views import gather_views, make_views, view_files, view_masks
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.earlier import Earlier
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.rigs import RigPhotographs
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.rigs import Rigs


@dataclass(frozen=True, kw_only=True)
class CutPanoramas:
    """The panoramas of a run."""

    views: tuple[PanoramaViews, ...]
    masks: tuple[Bool[np.ndarray, "h w"] | None, ...]
    """What of each panorama is looked at; None: all of it."""
    folder: Path
    """That the names of views are relative to."""

    def view_masks(self, images: ImageSet) -> dict[int, Bool[np.ndarray, "side side"] | None]:
        """Masks of the views among some photographs, None for whole views."""
        masks: dict[str, Bool[np.ndarray, "side side"] | None] = {}
        for views, mask in zip(self.views, self.masks, strict=True):
            parts = [None] * len(views.names) if mask is None else view_masks(mask, views.views)
            masks |= {self.file(name): part for name, part in zip(views.names, parts, strict=True)}
        files = [os.path.realpath(images.path(k)) for k in range(images.num_images)]
        return {k: masks[file] for k, file in enumerate(files) if file in masks}

    def file(self, name: str) -> str:
        """The true path of a view."""
        return os.path.realpath(self.folder / name)


def with_views(
    source: Path | list[Path],
    config: PipelineConfig,
    folder: RunFolder,
    progress: Progress,
    earlier: tuple[PanoramaViews, ...] = (),
) -> tuple[Path | list[Path], CutPanoramas | None]:
    """Photographs, with views in the place of panoramas, which are written to OUT/views; and what was cut, if anything.

    `earlier`: views in OUT/views of a run that this one goes on from, which are no part of the photographs.

    Raises:
        InputError: there are no photographs, or none of the panoramas, or the mask of one, can be read.
        StorageError: the views cannot be written.
    """
    before = None if not earlier else _of_record(earlier, folder)
    if config.panorama.use == "off":
        return source, before
    root, names = find_photographs(source)
    if config.masks is not None:
        names = without_masks(root, names, config.masks)
    found = recognise([root / name for name in names], all_of_aspect=config.panorama.use == "all")
    if found.parts:
        more = f" (and {len(found.parts) - 1} more)" if len(found.parts) > 1 else ""
        progress.warn(
            f"{found.parts[0].name}{more} is a part of a panorama: only whole ones are cut, it stays as it is"
        )
    if not found.panoramas:
        return source, before
    folder.require_outside(panorama.path for panorama in found.panoramas)
    masks = {one.path: _mask(one, one.path.relative_to(root).as_posix(), config) for one in found.panoramas}
    made = make_views(found.panoramas, config.panorama, folder.views, progress, earlier)
    if not made and not found.others:
        raise InputError(f"none of the {len(found.panoramas)} panoramas in {root} can be read")
    if not made:
        return list(found.others), before
    views = tuple(made.values())
    progress.note(
        f"{len(made)} panoramas of 360 degrees: each is looked at as {len(views[0].names)} views with one pose"
    )
    files = view_files(folder.views.root, views)
    folder.use_views([*files, *view_files(folder.views.root, earlier)])
    old = tuple(one for one in earlier if one not in views)
    whole = (None,) * len(old)
    panoramas = CutPanoramas(
        views=(*old, *views), masks=(*whole, *(masks[path] for path in made)), folder=folder.views.root
    )
    return [*found.others, *files], panoramas


def gathered_views(earlier: Earlier, folder: RunFolder) -> tuple[Earlier, CutPanoramas | None]:
    """Runs to go on from, with copies of the views of their panoramas in OUT/views; and what these are, if any.

    Raises:
        InputError: a view cannot be read.
        StorageError: the views cannot be written.
    """
    sources = [(Layout(run.folder).views, one) for run in earlier.runs for one in run.panoramas]
    if not sources:
        return earlier, None
    found, copies = gather_views(sources, folder.views)
    place = {os.path.realpath(old): os.path.realpath(new) for old, new in copies.items()}
    photographs = dict.fromkeys(Path(place.get(os.path.realpath(path), path)) for path in earlier.photographs)
    return replace(earlier, photographs=tuple(photographs), copies=place), _of_record(found, folder)


def _of_record(views: tuple[PanoramaViews, ...], folder: RunFolder) -> CutPanoramas:
    """Panoramas whose views are in OUT/views, without masks."""
    folder.use_views(view_files(folder.views.root, views))
    return CutPanoramas(views=views, masks=(None,) * len(views), folder=folder.views.root)


def _mask(panorama: Panorama, name: str, config: PipelineConfig) -> Bool[np.ndarray, "h w"] | None:
    """What the masks of the settings leave of a panorama; None: all of it."""
    own = None if config.masks is None else mask_file(config.masks, name, panorama.path)
    layers = []
    for path in (config.mask, own):
        if path is not None:
            layers.append(read_mask(path))
            require_aspect(path, layers[-1], np.array(panorama.size_wh), name)
    return both_masks(layers) if layers else None


def with_view_rigs(images: ImageSet, panoramas: CutPanoramas) -> RigPhotographs:
    """The photographs, with one camera for each direction of the views of panoramas among them."""
    sensors = {
        (views.side, number): direction
        for views in panoramas.views
        for number, direction in enumerate(directions(views.views))
    }
    rows = {key: row for row, key in enumerate(sorted(sensors))}
    place = {
        panoramas.file(name): (frame, (views.side, number))
        for frame, views in enumerate(panoramas.views)
        for number, name in enumerate(views.names)
    }
    of_image = [place.get(os.path.realpath(images.path(image))) for image in range(images.num_images)]
    keys = [("own", int(images.camera_index[k])) if of is None else ("view", *of[1]) for k, of in enumerate(of_image)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    sides = np.array([side for side, _ in rows], np.int64)
    poses = np.stack([sensors[key].view_from_rig for key in rows])
    rigs = Rigs(
        sensor=np.array([-1 if of is None else rows[of[1]] for of in of_image], np.int64),
        frame=np.array([-1 if of is None else of[0] for of in of_image], np.int64),
        rig=np.unique(sides, return_inverse=True)[1].reshape(-1),
        sensor_from_rig=poses,
        is_fixed=np.ones(len(rows), bool),
    )
    cameras = {
        number: make_camera("SIMPLE_PINHOLE", focal_px(key[1]), key[1], key[1])
        for key, number in numbers.items()
        if key[0] == "view"
    }
    return RigPhotographs(
        images=replace(images, camera_index=np.array([numbers[key] for key in keys], np.int64), rigs=rigs),
        cameras=cameras,
    )
