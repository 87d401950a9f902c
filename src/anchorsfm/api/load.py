"""Models from disk."""

import json
from pathlib import Path
from typing import Any

from anchorsfm.api import arguments
from anchorsfm.api.depth import StoredDepthMaps
from anchorsfm.api.model import Model
from anchorsfm.colmap.models import StoredModel, find_models, read_reconstruction
from anchorsfm.export.source import output_folder
from anchorsfm.scene.errors import InputError


def load(folder: str | Path) -> Model:
    """The largest model in a folder; the others are its `others`.

    Args:
        folder: an output folder of `reconstruct`, or any folder with a COLMAP model (binary or text), or with several
            in `0`, `1` ... or `sparse/0` ...

    Raises:
        InputError: there is no model, or a file is damaged; names it.
    """
    source = arguments.path("folder", folder)
    paths = find_models(source)
    root = output_folder(paths[0])
    report, warnings = _read_report(root)
    recorded = report.get("image_root") if report else None
    photographs = Path(recorded) if isinstance(recorded, str) else None
    stored = sorted(
        ((path, read_reconstruction(path)) for path in paths),
        key=lambda entry: (-len(entry[1].names), _number(entry[0])),
    )
    if not stored[0][1].names:
        raise InputError(f"the model in {stored[0][0]} has no registered image")

    def model(path: Path, content: StoredModel, **more: Any) -> Model:
        dense = root / "dense" if root is not None and path.name.isdecimal() else None
        return Model(
            content.model,
            content.names,
            report=report,
            photographs=photographs,
            dense_file=dense / f"{path.name}.ply" if dense else None,
            depth_maps=StoredDepthMaps(dense / "depth", int(path.name)) if dense else None,
            **more,
        )

    registered = {name for _, content in stored for name in content.names}
    return model(
        *stored[0],
        others=[model(*entry) for entry in stored[1:]],
        unregistered=_unregistered(report, registered),
        warnings=warnings,
    )


def _number(path: Path) -> int:
    """Of OUT/sparse/<number>."""
    return int(path.name) if path.name.isdecimal() else 0


def _read_report(root: Path | None) -> tuple[dict[str, Any] | None, list[str]]:
    """The record of the run, which a model can do without, and what is wrong with it."""
    if root is None:
        return None, []
    path = root / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, [f"the model comes without its report: cannot read {path}: {error}"]
    if not isinstance(report, dict):
        return None, [f"the model comes without its report: {path} holds no JSON object"]
    return report, [str(line) for line in report.get("warnings") or [] if isinstance(line, str)]


def _unregistered(report: dict[str, Any] | None, registered: set[str]) -> dict[str, str]:
    images = (report or {}).get("images")
    entries = [entry for entry in images if isinstance(entry, dict)] if isinstance(images, list) else []
    return {
        str(entry["name"]): str(entry.get("reason") or "not registered")
        for entry in entries
        if isinstance(entry.get("name"), str) and entry["name"] not in registered
    }
