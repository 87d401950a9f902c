"""Photographs in, a model out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchorsfm.api import arguments
from anchorsfm.api.display import progress_of
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.api.model import Model
    from anchorsfm.frontend.base import Frontend
    from anchorsfm.pipeline import RunResult
    from anchorsfm.run.config import PipelineConfig


def reconstruct(
    photos: str | Path | Sequence[str | Path],
    output: str | Path,
    config: "PipelineConfig | None" = None,
    *,
    preset: str | None = None,
    progress: bool | Progress | None = None,
    frontend: "str | Frontend | None" = None,
    mapper: str | None = None,
    adjust: bool | None = None,
    **settings: object,
) -> "Model":
    """Reconstruct photographs; a run that was interrupted continues where it stopped.

    Args:
        photos: a folder (searched recursively), a text file that lists images, a video; or a list of those and
            image files.
        output: folder for sparse/, dense/, cache/, report.html and the rest, as the command line writes them.
        config: settings to start from (default: the defaults).
        preset: in place of `config`, settings for a purpose: "fast", "splat", "survey" or "best".
        progress: True shows it: bars on a terminal or in a notebook, lines elsewhere; or your own `Progress`.
        frontend: "classical", "mast3r", or an object with the protocol of `anchorsfm.Frontend`.
        mapper: "align", "tracks", "incremental" or "global".
        adjust: False leaves the poses as the mapper found them: points are triangulated, nothing is adjusted.
        settings: any other setting by its name, such as `max_image_size=1600` or `kinematic_mode="mst"`; names that
            several groups have with their group: `classical__features__max_keypoints=4096`, or `**{"align.lr1": 0.1}`.

    Returns:
        The largest model; further ones are its `others`, images without a pose are in `unregistered`.

    Raises:
        InputError: the photographs or an argument cannot be used.
        NoReconstructionError: no two photographs could be related.
        StorageError: the output cannot be written.
    """
    from anchorsfm import pipeline

    source = source_of(photos)
    target = arguments.path("output", output)
    configured = _config(_start(config, preset), settings, frontend, mapper, adjust)
    own = None if frontend is None or isinstance(frontend, str) else _checked_frontend(frontend)
    with progress_of(progress) as shown:
        result = pipeline.reconstruct(source, target, configured, shown, frontend=own)
    return model_of(result, target)


def model_of(result: "RunResult", output: Path) -> "Model":
    """What a run made, by names."""
    import json

    from anchorsfm.api.depth import RunDepthMaps
    from anchorsfm.api.model import Model
    from anchorsfm.io.layout import Layout
    from anchorsfm.report.json_text import report_json

    report = json.loads(report_json(result.report))
    models = []
    for number, model in enumerate(result.models):
        maps = RunDepthMaps(result.depth_maps[number], result.images.names) if result.depth_maps else None
        models.append((model, Layout(output).cloud(number), maps))

    def named(number: int, **more: Any) -> Model:
        model, dense, maps = models[number]
        return Model(
            model,
            result.images.names,
            report=report,
            photographs=result.images.root,
            dense_file=dense,
            depth_maps=maps,
            **more,
        )

    return named(
        0,
        others=[named(number) for number in range(1, len(models))],
        unregistered={i.name: i.reason or "not registered" for i in result.report.images if i.model is None},
        warnings=result.report.warnings,
    )


def source_of(photos: object) -> Path | list[Path]:
    """What the argument `photos` names. Raises InputError for anything but paths."""
    if isinstance(photos, (list, tuple)):
        if not photos:
            raise InputError("photos is an empty list: expected image files, or a folder")
        return [arguments.path(f"photos[{k}]", photo) for k, photo in enumerate(photos)]
    return arguments.path("photos", photos)


def _start(config: object, preset: str | None) -> "PipelineConfig":
    from anchorsfm.run.config import PipelineConfig
    from anchorsfm.run.presets import PRESETS

    if preset is not None and config is not None:
        raise InputError("config and preset both say where to start from: give one of them")
    if preset is not None:
        return PRESETS[arguments.choice("preset", preset, PRESETS)].settings
    if config is not None and not isinstance(config, PipelineConfig):
        raise InputError(f"config: expected an anchorsfm.PipelineConfig, not {arguments.describe(config)}")
    return config or PipelineConfig()


def _config(
    start: "PipelineConfig", settings: dict[str, object], frontend: object, mapper: str | None, adjust: bool | None
) -> "PipelineConfig":
    from typing import get_args

    from anchorsfm.api.settings import with_settings
    from anchorsfm.frontend import FRONTENDS
    from anchorsfm.mapping.config import MapperName

    named = dict(settings)
    if isinstance(frontend, str):
        named["frontend"] = arguments.choice("frontend", frontend, FRONTENDS)
    if mapper is not None:
        named["mapper"] = arguments.choice("mapper", mapper, get_args(MapperName))
    if adjust is not None:
        named["bundle_adjustment"] = arguments.flag("adjust", adjust)
    if frontend is not None and getattr(frontend, "predicts_depth", True) is False:
        if named.get("mapper") == "align":
            raise InputError("mapper = 'align' needs pointmaps, which this frontend does not predict: use 'tracks'")
        named = {"mapper": "tracks" if start.mapper == "align" else start.mapper, "dense": False} | named
    return with_settings(start, named)


def _checked_frontend(frontend: object) -> "Frontend":
    from anchorsfm.api.frontends import CheckedFrontend

    return CheckedFrontend(frontend)
