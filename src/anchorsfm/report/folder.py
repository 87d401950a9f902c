"""OUT/report.html from what lies in the output folder: report.json, the models, dense clouds and photographs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.io.layout import DENSE, PAGE, REPORT, SPARSE
from anchorsfm.io.names import require_inside
from anchorsfm.io.owned import OwnedFolder, complete_publication, is_ours
from anchorsfm.io.store import write_atomic
from anchorsfm.report.depth import stored_pictures
from anchorsfm.report.page import Page, render, rows_in_report
from anchorsfm.report.pictures import thumbnails
from anchorsfm.report.space import ColouredPoints
from anchorsfm.results.model import StoredModel, read_stored_model
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.edit import with_images_numbered
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
    run, folder = StoredRun(output), OwnedFolder(output)
    path, report = run.layout.page, run.report
    folder.require_free([PAGE], [PAGE])
    lacking: list[str] = []
    if is_ours(output):
        lacking += [f"{output / name} is not what the run wrote" for name in folder.changed(_CHECKED)]
    text = _page(run, report, models, photos, lacking, progress)
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


def try_page(output: Path, result: Path, models: Sequence[Reconstruction] | None, progress: Progress) -> None:
    """The page of a result that is about to be published in `output`; whatever goes wrong is a warning.

    `models`: if they are at hand; otherwise they are read from `result`/sparse.
    """
    try:
        lacking: list[str] = []
        run = StoredRun(result)
        write_atomic(run.layout.page, _page(run, run.report, models, None, lacking, progress))
        for line in lacking:
            progress.warn(f"the page comes incomplete: {line}")
    except Exception as error:
        reason = str(error) if isinstance(error, AnchorSfMError) else f"{type(error).__name__}: {error}"
        progress.warn(f"no {PAGE} ({reason}); the models are complete, `anchorsfm report {output}` makes it again")


def _page(
    run: StoredRun,
    report: dict[str, Any],
    models: Sequence[Reconstruction] | None,
    photos: Path | None,
    lacking: list[str],
    progress: Progress,
) -> str:
    """The page; `lacking` takes what it has to do without."""
    entries = list(_stored_models(run, lacking) if models is None else _at_hand(run, models))
    if photos is not None and not photos.is_dir():
        raise InputError(f"--images {photos}: {'not a folder' if photos.exists() else 'no such folder'}")
    page = Page(
        report=report,
        models=entries,
        dense=[_dense_cloud(run, entry, lacking) for entry in entries],
        thumbnails=_thumbnails(run, photos or Path(report["image_root"]), lacking, progress),
        depth_pictures=_depth_pictures(run, lacking),
    )
    return render(page)


def _depth_pictures(run: StoredRun, lacking: list[str]) -> dict[str, bytes]:
    depth = run.report["depth"]
    if not depth:
        return {}
    try:
        return stored_pictures(run.layout.depth_pictures, depth["entry"])
    except InputError as error:
        lacking.append(str(error))
        return {}


def _at_hand(run: StoredRun, models: Sequence[Reconstruction]) -> Iterator[StoredModel]:
    """The models that a run has just written, as they would be read back."""
    for number, model in enumerate(models):
        names = tuple(run.report["images"][image]["name"] for image in model.image_index.tolist())
        folder = run.layout.model(number)
        yield StoredModel(folder=folder, model=with_images_numbered(model), names=names, number=number, run=run)


def _stored_models(run: StoredRun, lacking: list[str]) -> Iterator[StoredModel]:
    for number, entry in enumerate(run.report["models"]):
        path = run.layout.model(number)
        try:
            stored = read_stored_model(path, number=number, run=run)
            if (len(stored.names), len(stored.model.points)) != (entry["registered"], entry["points"]):
                lacking.append(
                    f"the model {path} has {len(stored.names)} images and {len(stored.model.points)} points, that of "
                    f"report.json {entry['registered']} and {entry['points']}"
                )
                continue
            rows_in_report(run.report, stored)
            yield stored
        except InputError as error:
            lacking.append(str(error))
        except KeyError as error:
            lacking.append(f"image {error} of the model {path} is not in report.json")


def _dense_cloud(run: StoredRun, entry: StoredModel, lacking: list[str]) -> ColouredPoints | None:
    """The dense cloud of a model, if there is one."""
    try:
        cloud = entry.read_cloud()
    except InputError as error:
        lacking.append(str(error))
        return None
    if cloud is None:
        if run.report["depth"]:
            lacking.append(f"the dense cloud {run.layout.cloud(entry.number)} is missing")
        return None
    grey = np.full((len(cloud.xyz), 3), 128, np.uint8)
    return ColouredPoints(xyz=cloud.xyz, rgb=grey if cloud.rgb is None else cloud.rgb)


def _thumbnails(run: StoredRun, root: Path, lacking: list[str], progress: Progress) -> list[bytes | None]:
    """Small pictures of the photographs that can still be read, of every row of `images` in the report."""
    report = run.report
    usable = [k for k, image in enumerate(report["images"]) if image["size_wh"]]
    content: list[bytes | None] = [None] * len(report["images"])
    if not usable:
        return content
    entries = [report["images"][k] for k in usable]
    require_inside((entry["name"] for entry in entries), run.layout.report)
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
