"""Depth maps and dense clouds of finished models, written as they are made."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from anchorsfm.dense.cloud import fuse
from anchorsfm.dense.config import CloudConfig
from anchorsfm.dense.maps import CleanView, DepthMaps
from anchorsfm.dense.rescale import canonical_depths, onto_model
from anchorsfm.frontend.base import PairPredictor
from anchorsfm.mapping.base import Mapped
from anchorsfm.report.depth import DepthLog
from anchorsfm.results.record import DepthFigures
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.modelling import Finished
from anchorsfm.run.predictions import Predicted
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress, counted


def make_dense(
    finished: Finished,
    mapped: Mapped,
    predicted: Predicted,
    predictor: PairPredictor,
    images: ImageSet,
    config: PipelineConfig,
    folder: RunFolder,
    progress: Progress,
    settled: Collection[int] = (),
) -> tuple[tuple[DepthMaps, ...], DepthFigures | None]:
    """Depth maps of each model, made when asked for, if they are asked for at all; their clouds are on disk already.

    `settled`: images whose depth stays as it was last matched.
    """
    if not config.dense:
        return (), None
    maps = []
    for model in finished.models:
        of_model = [a for a in mapped.alignments if np.isin(model.image_index, a.image_index).any()]
        scene, grid = predicted.scene_with_depth, predictor.grid
        depths = onto_model(of_model[0] if of_model else canonical_depths(model, scene), model, scene, grid)
        maps.append(DepthMaps(depths, model, scene, images, grid, config.cloud, folder.store, settled))
    log = DepthLog(sum(len(views) for views in maps))
    _write_dense(maps, images, config.cloud, folder, log, progress)
    return tuple(maps), log.finish(folder.depth_pictures)


def _write_dense(
    maps: Sequence[DepthMaps],
    images: ImageSet,
    config: CloudConfig,
    folder: RunFolder,
    log: DepthLog,
    progress: Progress,
) -> None:
    """Clouds of all models, and what else was asked for; `log` takes down what the report shows of the depth maps."""
    cameras: dict[str, object] = {}

    def watch(number: int, views: DepthMaps) -> Iterator[CleanView]:
        for clean in views:
            log.add(clean.image, clean.view.depth, clean.view.confidence)
            if config.depth_maps:
                name = images.names[clean.image]
                folder.write_depth_map(name, clean)
                cameras[name] = {"model": number, **clean.view.camera()}
            yield clean

    for number, views in enumerate(maps):
        log.begin_model(views.model)
        views.match(progress)
        with progress.stage("fusing depth", len(views)) as advance:
            cloud = fuse(counted(watch(number, views), advance), config, views.origin)
        folder.write_cloud(number, cloud)
        if config.mesh != "none":
            with progress.stage("meshing"):
                folder.write_mesh(number, config.mesh, cloud)
    if cameras:
        folder.write_depth_cameras(cameras)
