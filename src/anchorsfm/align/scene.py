"""From a front end, or a condensed scene, to one alignment per connected component."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.align.archive import from_arrays, to_arrays
from anchorsfm.align.config import AlignConfig
from anchorsfm.align.run import align
from anchorsfm.frontend.base import Frontend
from anchorsfm.io.store import Store, digest
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.checkpoint import observe
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene, components
from anchorsfm.observe.tree import build_tree
from anchorsfm.scene.alignment import AlignmentResult, KnownImage
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import SILENT, Progress, counted


def sparse_global_alignment(
    images: ImageSet,
    pairs: PairList,
    frontend: Frontend,
    *,
    shared_intrinsics: bool | None = None,
    known: Mapping[int, KnownImage] | None = None,
    store: Store | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> tuple[AlignmentResult, ...]:
    """Align all images: one result per connected component, the largest first.

    shared_intrinsics: True: one camera for all images, False: one for each, None: as `images.camera_index` says.
        Images of one camera that differ in size are taken for resized, not for cropped ones.
    known: what is known about some images, by index in `images`; intrinsics and depths are on the front end's grid.
    store: where predictions and the result are kept, so that the same call returns at once; None: nowhere.
    settings: fields of `GraphConfig` and `AlignConfig` by name (subsample, matching_conf_thr, kinematic_mode, lr1,
        niter1, lr2, niter2, gamma1, gamma2, loss_dust3r_w, opt_pp, opt_depth, depth_mode ...).

    Images that no usable pair reaches are in no result; no usable pair at all gives an empty tuple.
    Raises InputError for a setting that does not exist or known quantities that cannot be used.
    """
    graph_config, config = configs_of(settings)
    store = store or Store(None)
    camera_index = camera_index_of(images, shared_intrinsics)
    predictor = frontend.open(images, pairs, store, progress)
    known = dict(sorted((known or {}).items()))
    given = {str(image): value for image, value in known.items()}
    key = digest("scene alignment", predictor.digest, graph_config, config, camera_index, given)
    stored = store.load("alignment", key)
    if stored is not None:
        return _unpacked(stored)
    with progress.stage("pair predictions", len(predictor)) as advance:
        watch = partial(counted, advance=advance)
        scene = observe(images.num_images, predictor, pairs, graph_config, store, watch, progress)
    side = long_side_px(images, predictor.grid)
    results = align_scene(scene, config, camera_index=camera_index, long_side_px=side, known=known, progress=progress)
    store.save("alignment", key, _packed(results))
    return results


def long_side_px(images: ImageSet, grid: ImageGrid) -> Float[np.ndarray, "image"]:
    """Longer side of every photograph in pixels of the grid, which may show less of it."""
    return np.asarray(images.size_wh.max(axis=1) * grid.scale.mean(axis=1))


def _packed(results: Sequence[AlignmentResult]) -> dict[str, np.ndarray]:
    arrays = {f"{k}/{name}": array for k, result in enumerate(results) for name, array in to_arrays(result).items()}
    return {"num_components": np.array([len(results)]), **arrays}


def _unpacked(arrays: Mapping[str, np.ndarray]) -> tuple[AlignmentResult, ...]:
    parts: list[dict[str, np.ndarray]] = [{} for _ in range(int(arrays["num_components"][0]))]
    for name, array in arrays.items():
        component, _, field = name.partition("/")
        if field:
            parts[int(component)][field] = array
    return tuple(from_arrays(part) for part in parts)


def align_scene(
    scene: ObservedScene,
    config: AlignConfig | None = None,
    *,
    camera_index: Int[np.ndarray, "image"] | None = None,
    long_side_px: Float[np.ndarray, "image"] | None = None,
    known: Mapping[int, KnownImage] | None = None,
    store: Store | None = None,
    predictions: str = "",
    progress: Progress = SILENT,
) -> tuple[AlignmentResult, ...]:
    """Align every connected component of a condensed scene, the largest first; other arguments as for `align`.

    `store`: where the result of each component is kept; None: nowhere. `predictions`: digest of what the scene was
    condensed from, which the store tells scenes apart by.
    """
    config = config or AlignConfig()
    known = known or {}
    _check_indices(known, scene.graph.num_images)
    results = []
    for part in components(scene):
        cameras = None if camera_index is None else camera_index[part.image_index]
        side = None if long_side_px is None else long_side_px[part.image_index]
        given = [known.get(image) for image in part.image_index.tolist()]
        align_part = partial(
            align_component, part, config, camera_index=cameras, long_side_px=side, known=given, progress=progress
        )
        if store is None:
            results.append(align_part())
            continue
        key = digest("alignment", predictions, scene.config, config, part.image_index, cameras, side, given)
        arrays = store.load("alignment", key)
        if arrays is None:
            arrays = to_arrays(align_part())
            store.save("alignment", key, arrays)
        results.append(from_arrays(arrays))
    return tuple(results)


def align_component(
    part: ObservedScene,
    config: AlignConfig,
    *,
    camera_index: Int[np.ndarray, "view"] | None = None,
    long_side_px: Float[np.ndarray, "view"] | None = None,
    known: Sequence[KnownImage | None] | None = None,
    progress: Progress = SILENT,
) -> AlignmentResult:
    """Align one connected component; the other arguments are by its own views, as for `align`."""
    anchors = build_anchors(part)
    unmatched = config.reference.unmatched_tree_edges
    tree = build_tree(part.graph, anchors, config.kinematic_mode, allow_unmatched_edges=unmatched)
    return align(
        part,
        anchors,
        tree,
        config,
        camera_index=camera_index,
        long_side_px=long_side_px,
        known=known,
        progress=progress,
    )


def configs_of(settings: Mapping[str, Any]) -> tuple[GraphConfig, AlignConfig]:
    """Both configurations from fields by name."""
    names = [{field.name for field in fields(kind)} for kind in (GraphConfig, AlignConfig)]
    unknown = settings.keys() - names[0] - names[1]
    if unknown:
        known = ", ".join(sorted(names[0] | names[1]))
        raise InputError(f"unknown alignment setting {min(unknown)!r}; there are {known}")
    graph, align = ({name: value for name, value in settings.items() if name in part} for part in names)
    return GraphConfig(**graph), AlignConfig(**align)


def camera_index_of(images: ImageSet, shared: bool | None) -> Int[np.ndarray, "image"]:
    """The camera of each image. True: one for all; False: one for each; None: as the images say."""
    if shared is None:
        return images.camera_index
    return np.zeros(images.num_images, np.int64) if shared else np.arange(images.num_images)


def _check_indices(known: Mapping[int, KnownImage], num_images: int) -> None:
    for image in known:
        if not 0 <= image < num_images:
            raise InputError(f"known quantities for image {image}, but there are {num_images} images")
