"""The stages of a run: one list of names for the clock, the report, errors and progress."""

from collections.abc import Mapping
from enum import StrEnum

from anchorsfm.mapping.config import MapperName
from anchorsfm.run.config import PipelineConfig


class Stage(StrEnum):
    """A statement of `pipeline.reconstruct`."""

    IMAGES = "images"
    FEATURES = "features, matches"
    DEPTH = "dense depth"
    TRACKS = "tracks"
    ALIGNMENT = "alignment"
    MAPPER_TRACKS = "mapper tracks"
    MAPPER_INCREMENTAL = "mapper incremental"
    MAPPER_GLOBAL = "mapper global"
    MAPPER_KNOWN = "known poses"
    ADJUSTMENT = "adjustment"
    DENSE_CLOUD = "dense cloud"
    REPORT = "report figures"


MAPPING: Mapping[MapperName, Stage] = {
    "align": Stage.ALIGNMENT,
    "tracks": Stage.MAPPER_TRACKS,
    "incremental": Stage.MAPPER_INCREMENTAL,
    "global": Stage.MAPPER_GLOBAL,
    "known": Stage.MAPPER_KNOWN,
}
"""The stage of each mapper."""


def lowers_memory(config: PipelineConfig) -> dict[str, tuple[str, ...]]:
    """The settings, by stage, that lower how much memory it needs."""
    grid = "mast3r.image_size" if config.frontend == "mast3r" else "classical.dense.size"
    return {
        Stage.FEATURES: ("max_image_size", "classical.workers.num_workers"),
        Stage.DEPTH: (grid, "classical.workers.num_workers"),
        Stage.TRACKS: ("sparsify.max_keypoints", "sparsify.max_detected_keypoints"),
        Stage.ALIGNMENT: (grid,),
        Stage.ADJUSTMENT: ("sparsify.max_keypoints", "sparsify.max_detected_keypoints"),
        Stage.DENSE_CLOUD: (grid, "cloud.max_points"),
    }
