"""OUT/report.html from what lies in the output folder: report.json, the models, dense clouds and photographs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.colmap.models import read_reconstruction
from anchorsfm.io.layout import DENSE, PAGE, REPORT, SPARSE, Layout
from anchorsfm.io.names import require_inside
from anchorsfm.io.owned import OwnedFolder, complete_publication, is_ours
from anchorsfm.io.ply import read_ply
from anchorsfm.io.store import write_atomic
from anchorsfm.report.depth import stored_pictures
from anchorsfm.report.page import Page, PlacedModel, render
from anchorsfm.report.pictures import thumbnails
from anchorsfm.report.reading import read_report
from anchorsfm.report.space import Cloud
from anchorsfm.scene.errors import AnchorSfMError, InputError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction

_CHECKED = (REPORT, SPARSE, DENSE)
"""What a page is made from."""


def make_page(
    output: Path,
    *,
    models: Sequence[Reconstruction] | None = None,
    photos: Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write the page of a finished run and return its path.

    A page that is there is replaced only by one that lacks nothing.

    Args:
        output: folder of the run.
        models: its models, if they are at hand; otherwise they are read from `output`/sparse.
        photos: where the photographs lie now, if not where they were.
        progress: receives a warning for whatever the page has to do without.

    Raises:
        InputError: there is no report.json of this version, or a page is there and would be replaced by a poorer one.
        StorageError: the page cannot be written, or what lies in its place is not ours.
    """
    complete_publication(output)
    path = output / PAGE
    report = read_report(output / REPORT)
    folder = OwnedFolder(output)
    folder.require_free([PAGE], [PAGE])
    lacking: list[str] = []
    if is_ours(output):
        lacking += [f"{output / name} is not what the run wrote" for name in folder.changed(_CHECKED)]
    text = _page(output, report, models, photos, lacking, progress)
    if lacking and path.exists():
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise InputError(
            f"{path} stays as it is, a new page would have less: {lacking[0]}{more}; delete it to have one"
        )
    for line in lacking:
        progress.warn(f"the page comes incomplete: {line}")
    with folder.publication() as publication:
        write_atomic(publication.path / PAGE, text)
        publication.publish([PAGE])
    return path


def try_page(output: Path, result: Path, models: Sequence[Reconstruction], progress: Progress) -> None:
    """The page of a result that is about to be published in `output`; whatever goes wrong is a warning."""
    try:
        lacking: list[str] = []
        text = _page(result, read_report(result / REPORT), models, None, lacking, progress)
        write_atomic(result / PAGE, text)
        for line in lacking:
            progress.warn(f"the page comes incomplete: {line}")
    except Exception as error:
        reason = str(error) if isinstance(error, AnchorSfMError) else f"{type(error).__name__}: {error}"
        progress.warn(f"no {PAGE} ({reason}); the models are complete, `anchorsfm report {output}` makes it again")


def _page(
    folder: Path,
    report: dict[str, Any],
    models: Sequence[Reconstruction] | None,
    photos: Path | None,
    lacking: list[str],
    progress: Progress,
) -> str:
    """The page; `lacking` takes what it has to do without."""
    given = (
        None
        if models is None
        else [PlacedModel(number=k, model=m, rows=m.image_index.tolist()) for k, m in enumerate(models)]
    )
    placed = list(_stored_models(folder, report, lacking)) if given is None else given
    if photos is not None and not photos.is_dir():
        raise InputError(f"--images {photos}: {'not a folder' if photos.exists() else 'no such folder'}")
    page = Page(
        report=report,
        models=placed,
        dense=[_dense_cloud(folder, entry.number, report, lacking) for entry in placed],
        thumbnails=_thumbnails(report, photos or Path(report["image_root"]), folder, lacking, progress),
        depth_pictures=_depth_pictures(folder, report, lacking),
    )
    return render(page)


def _depth_pictures(folder: Path, report: dict[str, Any], lacking: list[str]) -> dict[str, bytes]:
    if not report["depth"]:
        return {}
    try:
        return stored_pictures(Layout(folder).depth_pictures, report["depth"]["entry"])
    except InputError as error:
        lacking.append(str(error))
        return {}


def _stored_models(output: Path, report: dict[str, Any], lacking: list[str]) -> Iterable[PlacedModel]:
    row = {image["name"]: k for k, image in enumerate(report["images"])}
    for number, entry in enumerate(report["models"]):
        path = Layout(output).model(number)
        try:
            stored = read_reconstruction(path)
            if (len(stored.names), len(stored.model.points)) != (entry["registered"], entry["points"]):
                lacking.append(
                    f"the model {path} has {len(stored.names)} images and {len(stored.model.points)} points, that of "
                    f"report.json {entry['registered']} and {entry['points']}"
                )
                continue
            yield PlacedModel(number=number, model=stored.model, rows=[row[name] for name in stored.names])
        except InputError as error:
            lacking.append(str(error))
        except KeyError as error:
            lacking.append(f"image {error} of the model {path} is not in report.json")


def _dense_cloud(output: Path, number: int, report: dict[str, Any], lacking: list[str]) -> Cloud | None:
    """The dense cloud of a model, if there is one."""
    path = Layout(output).cloud(number)
    try:
        if not path.is_file():
            if report["depth"]:
                lacking.append(f"the dense cloud {path} is missing")
            return None
        cloud = read_ply(path)
    except InputError as error:
        lacking.append(str(error))
        return None
    grey = np.full((len(cloud.xyz), 3), 128, np.uint8)
    return Cloud(xyz=cloud.xyz, rgb=grey if cloud.rgb is None else cloud.rgb)


def _thumbnails(
    report: dict[str, Any], root: Path, folder: Path, lacking: list[str], progress: Progress
) -> list[bytes | None]:
    """Small pictures of the photographs that can still be read, of every row of `images` in the report."""
    usable = [k for k, image in enumerate(report["images"]) if image["size_wh"]]
    content: list[bytes | None] = [None] * len(report["images"])
    if not usable:
        return content
    entries = [report["images"][k] for k in usable]
    require_inside((entry["name"] for entry in entries), folder / REPORT)
    photographs = [(root / entry["name"], tuple(entry["size_wh"])) for entry in entries]
    missing = []
    with progress.stage("report", len(usable)) as advance:
        for k, (picture, reason) in zip(usable, thumbnails(photographs), strict=True):
            content[k] = picture
            missing += [] if reason is None else [reason]
            advance(1)
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        lacking.append(f"{missing[0]}{more}")
    return content
