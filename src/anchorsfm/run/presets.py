"""Settings for what most people want, by a word: where a run starts from instead of the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from anchorsfm.export.config import ExportFormat
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.run.config import PipelineConfig

PresetName = Literal["fast", "splat", "survey", "best"]

_DEFAULT = PipelineConfig()


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a word stands for."""

    settings: PipelineConfig = field(default_factory=PipelineConfig)
    export: tuple[ExportFormat, ...] = ()
    """Formats that the largest model is written in too."""


def _classical(*, max_keypoints: int | None = None, dense_size: int | None = None) -> ClassicalFrontend:
    default = _DEFAULT.classical
    return replace(
        default,
        features=replace(default.features, max_keypoints=max_keypoints or default.features.max_keypoints),
        dense=replace(default.dense, size=dense_size or default.dense.size),
    )


PRESETS: Mapping[PresetName, Preset] = {
    "fast": Preset(
        settings=replace(
            _DEFAULT, max_image_size=800, mapper="tracks", dense=False, classical=_classical(max_keypoints=4096)
        )
    ),
    "splat": Preset(
        settings=replace(_DEFAULT, dense=True, cloud=replace(_DEFAULT.cloud, min_views=3, max_points=1_000_000)),
        export=("undistorted",),
    ),
    "survey": Preset(
        settings=replace(
            _DEFAULT,
            max_image_size=2048,
            dense=True,
            cloud=replace(_DEFAULT.cloud, min_views=3, depth_maps=True),
            classical=_classical(dense_size=1024),
        )
    ),
    "best": Preset(
        settings=replace(
            _DEFAULT, max_image_size=2048, dense=True, classical=_classical(max_keypoints=20480, dense_size=768)
        )
    ),
}
"""fast: is this set any good? splat: input of a Gaussian splat. survey: measurements in dense points. best: as many
points as there are to be had. docs/presets.md says what each changes and costs."""
