"""Models from disk."""

from pathlib import Path
from typing import Any

from anchorsfm.api import arguments
from anchorsfm.api.depth import StoredDepthMaps
from anchorsfm.api.model import Model
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.errors import InputError


def load(folder: str | Path) -> Model:
    """The largest model in a folder; the others are its `others`.

    Args:
        folder: an output folder of `reconstruct`, or any folder with a COLMAP model (binary or text), or with several
            in `0`, `1` ... or `sparse/0` ...

    Raises:
        InputError: there is no model, or a file is damaged; names it.
    """
    stored = sorted(read_models(arguments.path("folder", folder)), key=lambda entry: (-len(entry.names), entry.number))
    if not stored[0].names:
        raise InputError(f"the model in {stored[0].folder} has no registered image")
    report, warnings = _read_report(stored[0].run)

    def model(entry: StoredModel, **more: Any) -> Model:
        return Model(
            entry.model,
            entry.names,
            report=report,
            photographs=_photographs(entry),
            dense_file=entry.cloud_file,
            depth_maps=_depth_maps(entry),
            **more,
        )

    registered = {name for entry in stored for name in entry.names}
    return model(
        stored[0],
        others=[model(entry) for entry in stored[1:]],
        unregistered=_unregistered(report, registered),
        warnings=warnings,
    )


def _read_report(run: StoredRun | None) -> tuple[dict[str, Any] | None, list[str]]:
    """The record of the run, which a model can do without, and what is to be known."""
    if run is None or not run.has_report:
        return None, []
    try:
        report = run.report
    except InputError as error:
        return None, [f"the model comes without its report: {error}"]
    return report, list(report["warnings"])


def _photographs(entry: StoredModel) -> Path | None:
    try:
        return entry.image_root
    except InputError:  # of which the warning about the report tells
        return None


def _depth_maps(entry: StoredModel) -> StoredDepthMaps | None:
    if entry.run is None or not entry.is_result:
        return None
    return StoredDepthMaps(entry.run.layout, entry.recorded_number)


def _unregistered(report: dict[str, Any] | None, registered: set[str]) -> dict[str, str]:
    images = report["images"] if report else []
    return {image["name"]: image["reason"] or "not registered" for image in images if image["name"] not in registered}
