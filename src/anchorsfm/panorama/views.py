"""From panoramas to files: views are cut and written once, and used again when they are there already.

<folder>/panoramas.json                        what was cut from which panorama
<folder>/rig_config.json                       the views of a panorama as a rig, as COLMAP reads it
<folder>/<side>px/<direction>/<panorama>.jpg   one view; a folder holds what one camera of the rig sees

Views of panoramas with transparent pixels have them too, in PNG files: these are masked like those of any photograph.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm.io.decoding import photo_digest
from anchorsfm.io.exif import view_exif
from anchorsfm.io.files import read_regular
from anchorsfm.io.layout import RIG_CONFIG, VIEWS_RECORD
from anchorsfm.io.names import plain_stem
from anchorsfm.io.owned import FolderPart
from anchorsfm.io.pictures import load_file_alpha, load_file_rgb
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.panorama.config import PanoramaConfig
from anchorsfm.panorama.projection import cut, directions, focal_px, natural_side_px
from anchorsfm.panorama.recognise import Panorama
from anchorsfm.panorama.record import PanoramaViews, read_record, record_text
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import Progress

_JPEG_QUALITY = 95


def make_views(
    panoramas: Sequence[Panorama],
    config: PanoramaConfig,
    folder: FolderPart,
    progress: Progress,
    earlier: Sequence[PanoramaViews] = (),
) -> dict[Path, PanoramaViews]:
    """Cut and write the views of panoramas, unless they are there; by file. Of equal files the first one counts;
    those that cannot be decoded are skipped with a warning.

    Args:
        panoramas: files.
        config: which views.
        folder: where they go.
        progress: receives a stage, notes and warnings.
        earlier: views in the folder that stay on its record.

    Raises:
        InputError: the file of a panorama cannot be read.
        StorageError: the folder cannot be written, or something of somebody else is in the way.
    """
    written = folder.owned.files()
    whole = set(written) - set(folder.owned.changed([folder.inner]))
    there = read_record(folder.root) if folder.name(VIEWS_RECORD) in whole else ()
    made: dict[Path, PanoramaViews] = {}
    missing: list[tuple[Panorama, PanoramaViews, set[str]]] = []
    for panorama, key in _with_digests(panoramas, progress):
        side = config.size or natural_side_px(panorama.size_wh[0])
        known = [v for v in there if (v.digest, v.views, v.side) == (key, config.views, side)]
        try:
            views = known[0] if known else _described(panorama, key, config.views, side, [*there, *made.values()])
        except InputError as error:
            progress.warn(f"skipped {panorama.path.name}: {error}")
            continue
        # files that the record does not name may be of another picture of the same name
        wanted = {name for name in views.names if not known or folder.name(name) not in whole}
        if wanted:
            missing.append((panorama, views, wanted))
        made[panorama.path] = views
    if not missing and tuple(dict.fromkeys([*earlier, *made.values()])) == there:
        return made
    with folder.owned.publication() as publication:
        place = publication.path / folder.inner
        with progress.stage("cutting panoramas", len(missing)) as advance:
            for panorama, views, wanted in missing:
                try:
                    _write(panorama, views, place, wanted)
                except InputError as error:
                    progress.warn(f"skipped {panorama.path.name}: {error}")
                    del made[panorama.path]
                advance(1)
        record = list(dict.fromkeys([*earlier, *made.values()]))
        if not record:
            return made
        _write_record(place, record)
        publication.publish([folder.inner], kept=written)
    return made


def gather_views(
    sources: Sequence[tuple[Path, PanoramaViews]], folder: FolderPart
) -> tuple[tuple[PanoramaViews, ...], dict[Path, Path]]:
    """Copy views of panoramas from several folders into one, those of equal panoramas once.

    Args:
        sources: folder of views, and what a record says of the views of one panorama in it.
        folder: where they go.

    Returns what is in the folder now, and the place of every file that there is a copy of.

    Raises:
        InputError: a view cannot be read.
        StorageError: the folder cannot be written, or something of somebody else is in the way.
    """
    found: dict[tuple[str, str, int], PanoramaViews] = {}
    copies: dict[Path, Path] = {}
    written = folder.owned.files()
    with folder.owned.publication() as publication:
        place = publication.path / folder.inner
        for root, views in sources:
            key = (views.digest, views.views, views.side)
            is_new = key not in found
            if is_new:
                names = _names(views, list(found.values()), Path(views.names[0]).suffix)
                found[key] = replace(views, names=names)
            for old, new in zip(views.names, found[key].names, strict=True):
                copies[root / old] = folder.root / new
                if is_new:
                    write_atomic(place / new, _content(root / old))
        _write_record(place, list(found.values()))
        publication.publish([folder.inner], kept=written)
    return tuple(found.values()), copies


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _write_record(place: Path, panoramas: Sequence[PanoramaViews]) -> None:
    write_atomic(place / VIEWS_RECORD, record_text(panoramas))
    write_atomic(place / RIG_CONFIG, to_json(rig_config(panoramas)))


def view_masks(mask: Bool[np.ndarray, "h w"], kind: str) -> list[Bool[np.ndarray, "side side"]]:
    """The masks of the views of a panorama, from that of the panorama."""
    side = natural_side_px(mask.shape[1])
    return [view > 0 for view in cut(mask.astype(np.uint8), directions(kind), side, blends=False)]


def view_files(folder: Path, panoramas: Iterable[PanoramaViews]) -> list[Path]:
    """The views of panoramas, those of one direction after each other."""
    names = [name for views in panoramas for name in views.names]
    return [folder / name for name in sorted(names, key=lambda name: name.rpartition("/")[0])]


def rig_config(panoramas: Sequence[PanoramaViews]) -> list[dict[str, object]]:
    """The rigs in COLMAP's format, one for each kind of views."""
    rigs: list[dict[str, object]] = []
    for kind, side in sorted({(views.views, views.side) for views in panoramas}):
        cameras: list[dict[str, object]] = []
        for direction in directions(kind):
            camera: dict[str, object] = {
                "image_prefix": f"{_folder(side, direction.name)}/",
                "camera_model_name": "SIMPLE_PINHOLE",
                "camera_params": [focal_px(side), side / 2, side / 2],
            }
            if cameras:
                camera["cam_from_rig_rotation"] = _quaternion(direction.view_from_rig)
                camera["cam_from_rig_translation"] = [0.0, 0.0, 0.0]
            else:
                camera["ref_sensor"] = True
            cameras.append(camera)
        rigs.append({"cameras": cameras})
    return rigs


def _quaternion(pose: Float[np.ndarray, "3 4"]) -> list[float]:
    x, y, z, w = Rotation.from_matrix(pose[:, :3]).as_quat().tolist()
    return [w, x, y, z]


def _folder(side: int, direction: str) -> str:
    return f"{side}px/{direction}"


def _with_digests(panoramas: Sequence[Panorama], progress: Progress) -> Iterable[tuple[Panorama, str]]:
    seen: dict[str, Path] = {}
    for panorama in panoramas:
        try:
            key = photo_digest(read_regular(panorama.path))
        except OSError as error:
            raise InputError(f"cannot read {panorama.path}: {error.strerror or error}") from error
        if key in seen:
            progress.warn(f"skipped {panorama.path.name}: the same file as {seen[key].name}")
            continue
        seen[key] = panorama.path
        yield panorama, key


def _described(panorama: Panorama, key: str, kind: str, side: int, others: Sequence[PanoramaViews]) -> PanoramaViews:
    """What is to be cut. Raises InputError if transparent pixels are looked for and cannot be read."""
    opaque = load_file_alpha(panorama.path)
    views = PanoramaViews(panorama=printable(panorama.path.name), digest=key, views=kind, side=side, names=())
    return replace(views, names=_names(views, others, ".jpg" if opaque is None or opaque.all() else ".png"))


def _names(views: PanoramaViews, others: Sequence[PanoramaViews], suffix: str) -> tuple[str, ...]:
    """Of the views of a panorama, other ones than those of others."""
    stem = plain_stem(views.panorama, "panorama")
    taken = {Path(other.names[0]).stem.casefold() for other in others if other.side == views.side}
    if stem.casefold() in taken:
        stem = f"{stem}-{views.digest[:6]}"
    return tuple(f"{_folder(views.side, direction.name)}/{stem}{suffix}" for direction in directions(views.views))


def _write(panorama: Panorama, views: PanoramaViews, place: Path, wanted: set[str]) -> None:
    exif = view_exif(panorama.path, f"{views.panorama} {views.digest[:16]}")
    looks = directions(views.views)
    rgb = cut(load_file_rgb(panorama.path, panorama.size_wh, panorama.size_wh), looks, views.side)
    for name, pixels, opaque in zip(views.names, rgb, _opaque(panorama, views), strict=True):
        if name in wanted:
            write_atomic(place / name, _picture(pixels, opaque, exif))


def _opaque(panorama: Panorama, views: PanoramaViews) -> Iterable[UInt8[np.ndarray, "h w"] | None]:
    """The alpha channel of each view, 0 or 255; None: it has none."""
    opaque = load_file_alpha(panorama.path)
    if opaque is None or opaque.all():
        return [None] * len(views.names)
    return cut(np.where(opaque, np.uint8(255), np.uint8(0)), directions(views.views), views.side, blends=False)


def _picture(rgb: UInt8[np.ndarray, "h w 3"], opaque: UInt8[np.ndarray, "h w"] | None, exif: Image.Exif) -> bytes:
    buffer = io.BytesIO()
    if opaque is None:
        Image.fromarray(rgb).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, exif=exif)
    else:
        Image.fromarray(np.dstack([rgb, opaque])).save(buffer, "PNG", compress_level=1, exif=exif)
    return buffer.getvalue()
