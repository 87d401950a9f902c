"""OUT/report.html from what lies in the output folder: report.json, the models, dense clouds and photographs."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.colmap.models import read_reconstruction
from anchorsfm.io.ply import read_ply
from anchorsfm.io.store import Store, write_atomic
from anchorsfm.report.depth import stored_pictures
from anchorsfm.report.page import Page, PlacedModel, render
from anchorsfm.report.pictures import thumbnails
from anchorsfm.report.reading import read_report
from anchorsfm.report.space import Cloud
from anchorsfm.scene.errors import AnchorSfMError, InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction

PAGE = "report.html"


def make_page(
    output: Path,
    *,
    models: Sequence[Reconstruction] | None = None,
    photos: Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write the page of a finished run and return its path.

    Args:
        output: folder of the run.
        models: its models, if they are at hand; otherwise they are read from `output`/sparse.
        photos: where the photographs lie now, if not where they were.
        progress: receives a warning for whatever the page has to do without.

    Raises:
        InputError: there is no report.json of this version.
        StorageError: the page cannot be written.
    """
    report = read_report(output / "report.json")
    store = Store(output / "cache", progress)
    given = (
        None
        if models is None
        else [PlacedModel(number=k, model=m, rows=m.image.tolist()) for k, m in enumerate(models)]
    )
    placed = list(_stored_models(output, report, progress)) if given is None else given
    if photos is not None and not photos.is_dir():
        raise InputError(f"--images {photos}: {'not a folder' if photos.exists() else 'no such folder'}")
    page = Page(
        report=report,
        models=placed,
        dense=[_dense_cloud(output, entry.number, progress) for entry in placed],
        thumbnails=_thumbnails(report, photos or Path(report["image_root"]), progress),
        depth_pictures=stored_pictures(store, report["depth"]["entry"]) if report["depth"] else {},
    )
    path = output / PAGE
    write_atomic(path, render(page))
    return path


def try_page(output: Path, models: Sequence[Reconstruction], progress: Progress) -> None:
    """`make_page` at the end of a run: whatever goes wrong is a warning, for the models are safe already."""
    try:
        make_page(output, models=models, progress=progress)
    except Exception as error:
        with suppress(OSError):
            (output / PAGE).unlink()  # that of an earlier run
        reason = str(error) if isinstance(error, AnchorSfMError) else f"{type(error).__name__}: {error}"
        progress.warn(f"no {PAGE} ({reason}); the models are complete, `anchorsfm report {output}` makes it again")


def _stored_models(output: Path, report: dict[str, Any], progress: Progress) -> Iterable[PlacedModel]:
    row = {image["name"]: k for k, image in enumerate(report["images"])}
    for number in range(len(report["models"])):
        try:
            stored = read_reconstruction(output / "sparse" / str(number))
            yield PlacedModel(number=number, model=stored.model, rows=[row[name] for name in stored.names])
        except InputError as error:
            progress.warn(f"the page comes without model {number}: {error}")
        except KeyError as error:
            progress.warn(f"the page comes without model {number}: its image {error} is not in report.json")


def _dense_cloud(output: Path, number: int, progress: Progress) -> Cloud | None:
    """The dense cloud of a model, if there is one."""
    path = output / "dense" / f"{number}.ply"
    if not path.is_file():
        return None
    try:
        cloud = read_ply(path)
    except InputError as error:
        progress.warn(f"the page comes without the dense cloud {path}: {error}")
        return None
    grey = np.full((len(cloud.xyz), 3), 128, np.uint8)
    return Cloud(xyz=cloud.xyz, rgb=grey if cloud.rgb is None else cloud.rgb)


def _thumbnails(report: dict[str, Any], root: Path, progress: Progress) -> list[bytes | None]:
    """Small pictures of the photographs that can still be read, of every row of `images` in the report."""
    usable = [k for k, image in enumerate(report["images"]) if image["size_wh"]]
    content: list[bytes | None] = [None] * len(report["images"])
    if not usable:
        return content
    images = ImageSet(
        root=root,
        names=tuple(report["images"][k]["name"] for k in usable),
        size_wh=np.array([report["images"][k]["size_wh"] for k in usable], np.int64),
        camera_index=np.zeros(len(usable), np.int64),
        focal_prior_px=np.full(len(usable), np.nan),
        digests=("",) * len(usable),
    )
    missing = []
    with progress.stage("report", len(usable)) as advance:
        for k, (picture, reason) in zip(usable, thumbnails(images), strict=True):
            content[k] = picture
            missing += [] if reason is None else [reason]
            advance(1)
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        progress.warn(f"the page comes without a picture: {missing[0]}{more}")
    return content
