"""What can be wrong with the settings of a run as a whole: before a photograph is read, and once they are known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from anchorsfm.colmap.meshing import check_mesh_method
from anchorsfm.dense.config import MAX_IMAGES_BY_DEFAULT
from anchorsfm.features.config import chosen_matcher
from anchorsfm.io.masks import check_masks
from anchorsfm.io.reference_systems import check_epsg, named_area_without
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.mapping.config import POSE_MAPPERS
from anchorsfm.pairing import check_scene_graph
from anchorsfm.pairing.similarity import open_similarity
from anchorsfm.run.cluster import check_cluster
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.ground import check_gcp
from anchorsfm.run.rigs import check_rig
from anchorsfm.run.unused import without_effect
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.tracks.config import FEW_VIEWS


def check_settings(config: PipelineConfig) -> None:
    """Raise InputError for what depends on files, libraries, or settings of several parts, and StorageError if the
    cache's URL cannot be used."""
    check_mesh_method(config.cloud.mesh)
    check_scene_graph(config.scene_graph)
    check_masks(config.masks, config.mask)
    if config.ray is not None:
        check_cluster(config.ray)
    if config.cache_url is not None:
        RemoteFolder(config.cache_url, pauses_s=()).require_usable()
    check_rig(config.rig)
    check_gcp(config.gcp)
    if config.epsg is not None:
        check_epsg(config.epsg)
    if config.similarity is not None:
        open_similarity(config.similarity)
    if config.mapper not in POSE_MAPPERS and config.known.model is not None and config.known.use_poses:
        raise InputError(
            f"--mapper {config.mapper} finds all poses itself: add --known.no-use-poses, or use --mapper align"
        )
    if config.mapper == "known" and (config.known.model is None or not config.known.use_poses):
        raise InputError("--mapper known takes all poses from --known.model: give it, without --known.no-use-poses")


def settled(
    config: PipelineConfig,
    images: ImageSet,
    changed: Sequence[str],
    progress: Progress,
    *,
    has_video: bool,
) -> PipelineConfig:
    """The settings with those decided that the number of photographs decides; warns of changed ones without effect."""
    dense = config.dense is not False
    if config.dense is None and images.num_images > MAX_IMAGES_BY_DEFAULT:
        progress.warn(f"no dense cloud of more than {MAX_IMAGES_BY_DEFAULT} images unless asked for: add --dense")
        dense = False
    config = replace(config, dense=dense)
    if config.epsg is not None and images.geo is not None:
        area = named_area_without(images.geo.origin[:2], config.epsg)
        if area is not None:
            progress.warn(f"EPSG:{config.epsg} is for {area}, and the photographs are not from there")
    for line in without_effect(
        changed,
        frontend=config.frontend,
        detector=config.classical.features.first_detector,
        matcher=chosen_matcher(config.classical.matching, config.classical.features.first_detector),
        uses_networks=config.classical.uses_networks,
        has_second_method=config.classical.has_second_method,
        mapper=config.mapper,
        dense=dense,
        refines_keypoints=config.refines_keypoints(from_grid=config.frontend != "classical")
        or (config.refine_keypoints == "auto" and images.num_images <= FEW_VIEWS),
        has_known_model=config.known.model is not None or config.rig.file is not None,
        has_rig=config.rig.file is not None,
        has_ground_points=config.gcp.file is not None,
        has_video=has_video,
        has_panoramas=images.rigs is not None and bool(images.rigs.views_of_panoramas.any()),
        reads_positions=images.geo is not None,
        lacks_positions=config.gps != "off" and images.geo is None,
        has_focal_deviation=images.focal_deviation is not None and bool(np.isfinite(images.focal_deviation).any()),
    ):
        progress.warn(line)
    return config
