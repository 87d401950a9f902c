"""Exports in an output folder, brought into the frame of the model that they were made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool

from anchorsfm.colmap.models import is_model
from anchorsfm.colmap.move import move_model
from anchorsfm.export.config import ExportConfig, ExportFormat
from anchorsfm.export.record import is_of_model, keep_model, model_digest
from anchorsfm.export.run import write_export
from anchorsfm.export.transforms import colmap_from_opengl_axes, opengl_from_colmap_axes
from anchorsfm.geometry.similarity import Similarity, between_poses
from anchorsfm.io.json_files import read_json
from anchorsfm.io.layout import Layout
from anchorsfm.io.names import require_inside
from anchorsfm.io.owned import OwnedFolder, is_ours
from anchorsfm.io.ply import read_ply, write_ply
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.results.model import StoredModel, read_models, read_stored_model
from anchorsfm.scene.errors import AnchorSfMError, InputError
from anchorsfm.scene.progress import Progress
from anchorsfm.transform.record import ModelTransform

_WITH_PICTURES = ("undistorted", "transforms")
"""Exports that are changed as they are: pictures and settings stay."""
_SAME_FRAME = 1e-9
_SAME_MODEL = 1e-5


def follow(root: Path, past: ModelTransform, progress: Progress, former: str | None = None) -> list[Path]:
    """Bring the exports of a model in `root`/export into its frame; those that cannot follow are named in a warning.

    It does not matter how many changes they have missed, so that this can be done again after an interruption.

    Args:
        root: an output folder.
        past: all changes of the model, also those that exports have followed already.
        progress: receives warnings.
        former: `model_digest` of the model before its last change: exports of it are now of the model that it became.

    Returns:
        The folders that were changed.
    """
    models = read_models(root)
    largest = max(models, key=lambda entry: len(entry.names))
    changed = []
    for kind, folder, of_number in _exports(Layout(root).exports):
        entry = largest if of_number is None else next((m for m in models if m.recorded_number == of_number), None)
        if entry is None or entry.recorded_number != past.number:
            continue
        try:
            if _bring(entry, kind, folder, past, progress, former):
                changed.append(folder)
        except AnchorSfMError as error:
            progress.warn(f"{folder} is still in the former frame, export it again: {error}")
    return changed


def _exports(root: Path) -> Iterator[tuple[ExportFormat, Path, int | None]]:
    """Format, folder and, of exports of every model, number of the model of each export."""
    for kind in get_args(ExportFormat):
        if is_ours(root / kind):
            yield kind, root / kind, None
        elif (root / kind).is_dir():
            for part in sorted((root / kind).iterdir()):
                if part.name.isdecimal() and is_ours(part):
                    yield kind, part, int(part.name)


def _bring(
    entry: StoredModel,
    kind: ExportFormat,
    folder: Path,
    past: ModelTransform,
    progress: Progress,
    former: str | None,
) -> bool:
    """Whether an export had to be changed."""
    owned = OwnedFolder(folder)
    owned.complete()
    digest = model_digest(entry.folder)
    with owned.publication() as publication:
        if kind in _WITH_PICTURES:
            way = _way(entry, kind, folder)
            if kind == "undistorted":
                kept = move_model(folder / "sparse" / "0", publication.path / "sparse" / "0", way, past.keeps)
            else:
                kept = _move_transforms(folder, publication.path, way, past)
            if _is_nothing(way) and kept.all():
                return False
        else:
            write_export(entry, kind, folder, publication.path, ExportConfig(), progress)
        publication.publish([""], kept=owned.files())
        if kind not in _WITH_PICTURES or (former is not None and is_of_model(folder, former)):
            keep_model(folder, digest)
    return True


def _way(entry: StoredModel, kind: ExportFormat, folder: Path) -> Similarity:
    """From the frame of an export to that of the model; raises InputError if it is an export of another model."""
    if kind == "undistorted":
        if not is_model(folder / "sparse" / "0"):
            raise InputError(f"{folder} is not complete")
        poses = read_stored_model(folder / "sparse" / "0").model.cam_from_world
    else:
        poses = colmap_from_opengl_axes(_matrices(_read_transforms(folder), folder))
    wanted = entry.model.cam_from_world
    problem = InputError(f"{folder} was made from another model")
    if poses.shape != wanted.shape:
        raise problem
    way = between_poses(poses, wanted)
    off = np.abs(way.poses(poses) - wanted).max()
    if not off <= _SAME_MODEL * max(1.0, float(np.abs(wanted).max())):
        raise problem
    return way


def _is_nothing(way: Similarity) -> bool:
    size = max(1.0, float(np.abs(way.shift).max()))
    return bool(np.abs(way.matrix - np.eye(4)).max() <= _SAME_FRAME * size)


def _read_transforms(folder: Path) -> dict[str, Any]:
    content = read_json(folder / "transforms.json")
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise InputError(f"{folder / 'transforms.json'} has no frames")
    return content


def _matrices(content: dict[str, Any], folder: Path) -> np.ndarray:
    try:
        return np.array([frame["transform_matrix"] for frame in content["frames"]], np.float64).reshape(-1, 4, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'transforms.json'} is damaged: {error}") from error


def _move_transforms(folder: Path, target: Path, way: Similarity, past: ModelTransform) -> Bool[np.ndarray, "point"]:
    """Which points of its cloud stayed."""
    content = _read_transforms(folder)
    poses = way.poses(colmap_from_opengl_axes(_matrices(content, folder)))
    for frame, matrix in zip(content["frames"], opengl_from_colmap_axes(poses), strict=True):
        frame["transform_matrix"] = matrix
    name, kept = content.get("ply_file_path"), np.ones(0, bool)
    if isinstance(name, str):
        require_inside([name], folder / "transforms.json")
        cloud = read_ply(folder / name)
        xyz = way.points(cloud.xyz)
        kept = past.keeps(xyz)
        rgb = np.full((len(xyz), 3), 128, np.uint8) if cloud.rgb is None else cloud.rgb
        write_ply(target / name, xyz[kept], rgb[kept])
    write_atomic(target / "transforms.json", to_json(content))
    return kept
