"""Exporting models in several formats, each into a folder of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from anchorsfm.export.colmap import export_binary, export_text
from anchorsfm.export.config import ExportConfig, ExportFormat
from anchorsfm.export.glb import export_glb
from anchorsfm.export.matches import export_database
from anchorsfm.export.photographs import ViewPhotographs, open_photographs
from anchorsfm.export.record import keep_model, model_digest
from anchorsfm.export.seeds import DenseSeeds, dense_seeds
from anchorsfm.export.source import default_output, models_to_export, photograph_folder
from anchorsfm.export.trajectories import export_kitti, export_tum
from anchorsfm.export.transforms import export_transforms
from anchorsfm.export.undistorted import export_undistorted
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.io.ply import write_ply
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress


def export(
    folder: Path,
    formats: Sequence[ExportFormat],
    output: Path | None = None,
    config: ExportConfig | None = None,
    *,
    every_model: bool = False,
    progress: Progress = SILENT,
) -> list[Path]:
    """Write models in other formats as output/<format>, or output/<format>/<number of the model>.

    Args:
        folder: an output folder of `reconstruct`, or a COLMAP model.
        formats: what to write, in this order.
        output: where; None: `export` in the output folder that the model belongs to.
        config: settings.
        every_model: all models of an output folder in numbered folders, instead of the one with the most images.
        progress: receives stages and warnings.

    Returns:
        The folder of each format.

    Raises:
        InputError: a model, photograph, mask or option cannot be used; names the file.
        StorageError: something cannot be written, or something of somebody else would be lost. What an earlier export
            made of that format is then still there.
    """
    config = config or ExportConfig()
    if not formats:
        raise InputError(f"--to: name at least one format of {', '.join(get_args(ExportFormat))}")
    models = models_to_export(folder, every=every_model)
    digests = [model_digest(entry.folder) for entry in models]
    output = output or default_output(folder, models[0])
    targets = list(dict.fromkeys(output / name for name in formats))
    for target, kind in zip(targets, dict.fromkeys(formats), strict=True):
        for entry, digest in zip(models, digests, strict=True):
            part = target / entry.folder.name if every_model else target
            with OwnedFolder(part).publication(resume=True) as publication:
                kept = write_export(entry, kind, part, publication.path, config, progress)
                publication.publish([""], kept=kept)
                keep_model(part, digest)
    return targets


def write_export(
    entry: StoredModel,
    kind: ExportFormat,
    target: Path,
    part: Path,
    config: ExportConfig,
    progress: Progress,
) -> list[str]:
    """Write one format into `part`, from where it is published in `target`; paths there of files that stay.

    Raises like `export`.
    """
    match kind:
        case "colmap-binary":
            export_binary(entry, part)
        case "colmap-text":
            export_text(entry, part, progress)
        case "undistorted":
            photographs, seeds = _photographs(entry, config), _seeds(entry, config)
            quality = config.jpeg_quality
            return export_undistorted(entry, photographs, target, part, config.undistort, quality, progress, seeds)
        case "transforms":
            known = _photographs_if_known(entry, config, target, progress)
            seeds = _seeds(entry, config)
            return export_transforms(entry, known, target, part, config.jpeg_quality, progress, seeds)
        case "ply":
            write_ply(part / "points.ply", entry.model.points, entry.model.rgb)
        case "glb":
            export_glb(entry, part)
        case "database":
            export_database(entry, part)
        case "tum":
            export_tum(entry, part)
        case "kitti":
            export_kitti(entry, part)
    return []


def _seeds(entry: StoredModel, config: ExportConfig) -> DenseSeeds | None:
    return None if config.points == "sparse" else dense_seeds(entry, config.max_dense)


def _photographs(entry: StoredModel, config: ExportConfig) -> ViewPhotographs:
    root = photograph_folder(entry, config.images)
    masks, invert = config.masks, config.invert_masks
    if masks is None and entry.run is not None and entry.run.layout.masks.is_dir():
        masks, invert = entry.run.layout.masks, False  # those the model was made with
    return open_photographs(entry, root, masks=masks, invert_masks=invert)


def _photographs_if_known(
    entry: StoredModel, config: ExportConfig, target: Path, progress: Progress
) -> ViewPhotographs | None:
    root = photograph_folder(entry, config.images)
    if root is not None and (config.images is not None or root.is_dir()):
        return _photographs(entry, config)
    progress.warn(
        f"the photographs of {entry.folder} are not known: put them, upright, into {target / 'images'}, or name their "
        "folder with --images"
    )
    return None
