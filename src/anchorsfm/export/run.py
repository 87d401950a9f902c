"""Exporting models in several formats, each into a folder of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from anchorsfm.colmap.undistort import UndistortConfig
from anchorsfm.export.colmap import export_binary, export_text
from anchorsfm.export.glb import export_glb
from anchorsfm.export.matches import export_database
from anchorsfm.export.photographs import Photographs, open_photographs
from anchorsfm.export.seeds import DenseSeeds, dense_seeds
from anchorsfm.export.source import ExportModel, default_output, photograph_folder, read_models
from anchorsfm.export.trajectories import export_kitti, export_tum
from anchorsfm.export.transforms import export_transforms
from anchorsfm.export.undistorted import export_undistorted
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.io.ply import write_ply
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.settings import Range, Settings

ExportFormat = Literal[
    "undistorted", "transforms", "colmap-binary", "colmap-text", "ply", "glb", "database", "tum", "kitti"
]
"""undistorted: photographs and a PINHOLE model for radiance field trainers; transforms: nerfstudio's transforms.json;
database: COLMAP's; tum and kitti: camera paths as text."""


PointKind = Literal["sparse", "dense"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Settings of an export."""

    points: PointKind = "sparse"
    """Points of the formats `undistorted` and `transforms`, from which trainers start: the triangulated ones, or with
    `dense` those of the dense cloud too (undistorted) or instead (transforms)."""
    max_dense: Annotated[int, Range(1, 100_000_000)] = 500_000
    """Points of the dense cloud that are exported at most, chosen evenly at random; trainers keep all in memory."""
    images: Path | None = None
    """Folder that image names are relative to; known from report.json where the photographs have not moved."""
    masks: Path | None = None
    """Folder with a mask <image name>.png (or <name without extension>.png) for every image: black is ignored."""
    invert_masks: bool = False
    """Ignore the white parts of masks instead of the black ones."""
    undistort: UndistortConfig = field(default_factory=UndistortConfig)
    """How the pictures of the format `undistorted` are made."""
    jpeg_quality: Annotated[int, Range(1, 100)] = 95
    """JPEG quality, 1 .. 100, of pictures made from JPEG photographs; PNG, TIFF and BMP become PNG."""


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
    models = read_models(folder, every=every_model)
    output = output or default_output(folder)
    targets = list(dict.fromkeys(output / name for name in formats))
    for target, kind in zip(targets, dict.fromkeys(formats), strict=True):
        for entry in models:
            part = target / entry.folder.name if every_model else target
            with OwnedFolder(part).publication(resume=True) as publication:
                kept = _export_one(entry, kind, part, publication.path, folder, config, progress)
                publication.publish([""], kept=kept)
    return targets


def _export_one(
    entry: ExportModel,
    kind: ExportFormat,
    target: Path,
    part: Path,
    folder: Path,
    config: ExportConfig,
    progress: Progress,
) -> list[str]:
    """Write one format into `part`, from where it is published in `target`; paths there of files that stay."""
    match kind:
        case "colmap-binary":
            export_binary(entry, part)
        case "colmap-text":
            export_text(entry, part, progress)
        case "undistorted":
            photographs, seeds = _photographs(entry, folder, config), _seeds(entry, config)
            quality = config.jpeg_quality
            return export_undistorted(entry, photographs, target, part, config.undistort, quality, progress, seeds)
        case "transforms":
            known = _photographs_if_known(entry, folder, config, target, progress)
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


def _seeds(entry: ExportModel, config: ExportConfig) -> DenseSeeds | None:
    return None if config.points == "sparse" else dense_seeds(entry, config.max_dense)


def _photographs(entry: ExportModel, folder: Path, config: ExportConfig) -> Photographs:
    root = photograph_folder(folder, config.images)
    return open_photographs(entry, root, masks=config.masks, invert_masks=config.invert_masks)


def _photographs_if_known(
    entry: ExportModel, folder: Path, config: ExportConfig, target: Path, progress: Progress
) -> Photographs | None:
    root = photograph_folder(folder, config.images)
    if root is not None and (config.images is not None or root.is_dir()):
        return _photographs(entry, folder, config)
    progress.warn(
        f"the photographs of {entry.folder} are not known: put them, upright, into {target / 'images'}, or name their "
        "folder with --images"
    )
    return None
