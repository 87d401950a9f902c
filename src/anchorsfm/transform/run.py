"""The whole of a transform: what is asked is found, an output folder is written anew as a whole, exports follow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anchorsfm.export.record import model_digest
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.io.layout import (
    CAMERAS_GEOJSON,
    CAMERAS_KML,
    DENSE,
    ERRORS,
    GEOREFERENCE,
    LOCALISATION,
    PAGE,
    REPORT,
    SPARSE,
    TRANSFORM,
    UNCERTAINTY,
    Layout,
)
from anchorsfm.io.owned import OwnedFolder, complete_publication, is_ours
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.report.folder import try_page
from anchorsfm.results.model import StoredModel, read_stored_model
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.transform.apply import Change, write_changed
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.earth import without_place
from anchorsfm.transform.exports import follow
from anchorsfm.transform.find import Crop, Found, find
from anchorsfm.transform.record import TransformRecord, make_step, read_transforms

_SCOPE = (
    SPARSE, DENSE, LOCALISATION, ERRORS, REPORT, PAGE, UNCERTAINTY, GEOREFERENCE, CAMERAS_GEOJSON, CAMERAS_KML,
    TRANSFORM,
)  # fmt: skip
"""What a transform writes anew."""


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """What a transform came to; everything is on disk already."""

    similarity: Similarity
    """From the former frame to the new one."""
    notes: tuple[str, ...]
    """What was found, one line each."""
    exports: tuple[Path, ...]
    """Folders of exports that followed."""


def transform(output: Path, config: TransformConfig, progress: Progress = SILENT) -> Transformed:
    """Bring a model of an output folder, with everything that belongs to it, into another frame.

    Models, clouds, meshes, depth maps, deviations, report and record appear as a whole, or stay as they are; then the
    exports in the folder follow. Without anything to change only these are looked at, which completes what an
    interrupted transform has left.

    Args:
        output: output folder of `reconstruct`.
        config: the new frame.
        progress: receives stages and warnings.

    Raises:
        InputError: the folder is none, a file in it is damaged, or what the frame is found from is not there.
        StorageError: something was changed since the run wrote it, or cannot be written.
    """
    stored, owned = _opened(output, config.model)
    layout, record = Layout(output), read_transforms(Layout(output).transform)
    if not config.asks_for_something and not config.reset:
        exports = follow(output, record.of(config.model), progress)
        return Transformed(similarity=Similarity.of(), notes=("nothing to change was given",), exports=tuple(exports))
    report = StoredRun(output).report["models"]
    if config.model >= len(report):
        raise InputError(f"{layout.report} knows no model {config.model}")
    entry = report[config.model]
    former = model_digest(stored.folder)
    was_metric = stored.is_metric
    if config.reset:
        found, after, change = _reset(record, config.model, output, was_metric)
    else:
        found = find(stored, config)
        for warning in found.warnings:
            progress.warn(warning)
        step = make_step(
            _asked(config),
            found.found,
            found.similarity,
            found.crop,
            former_up=entry["up"],
            former_metric=was_metric,
            former_georeference=None if found.place is None else entry["georeference"],
        )
        after = record.with_step(config.model, step)
        change = Change(
            similarity=found.similarity,
            crop=found.crop,
            up=_up_after(found, entry["up"]),
            metric=found.metric or (was_metric and config.scale in (None, 1)),
            was_metric=was_metric,
            rescales_metres=found.metric,
            place=found.place,
        )
    if not config.reset and change.moves:
        _say_what_stays(layout, entry, found, progress)
    files = [
        name
        for name in owned.files()
        if name.split("/")[0] in _SCOPE and name != TRANSFORM and (output / name).exists()  # users may remove some
    ]
    with progress.stage("writing the new frame", 2) as advance, owned.publication() as publication:
        write_changed(layout, Layout(publication.path), files, config.model, change)
        advance(1)
        if after.models:
            write_atomic(Layout(publication.path).transform, to_json(after))
        (publication.path / PAGE).unlink(missing_ok=True)
        try_page(output, publication.path, None, progress)
        publication.publish(_SCOPE)
        advance(1)
    exports = follow(output, after.of(config.model), progress, former)
    return Transformed(similarity=change.similarity, notes=found.notes, exports=tuple(exports))


def _say_what_stays(layout: Layout, entry: Mapping[str, Any], found: Found, progress: Progress) -> None:
    """Name the files that go on speaking of the frame that the model leaves."""
    comes_back = found.takes_place and found.place is None
    if (
        not found.takes_place
        and layout.georeference.is_file()
        and (entry["georeference"] or {}).get("mode") in ("align", "prior", "control")
    ):
        progress.note(f"the model is not in the frame of its recorded positions any more: {layout.georeference} has "
                      "the way back")  # fmt: skip
    if layout.ground_control.is_file() and not comes_back:
        progress.note(f"{layout.ground_control} stays in the frame of the survey, from which {layout.transform} has "
                      "the way")  # fmt: skip


def _opened(output: Path, number: int) -> tuple[StoredModel, OwnedFolder]:
    """The model, and the folder, of which everything is as it was written."""
    if not output.is_dir():
        raise InputError(f"{output}: {'not a folder' if output.exists() else 'no such folder'}")
    complete_publication(output)
    layout = Layout(output)
    if not is_ours(output) or not layout.report.is_file():
        raise InputError(
            f"{output} is no output folder of anchorsfm reconstruct, the only one whose frame can be changed"
        )
    if not layout.model(number).is_dir():
        raise InputError(f"{output} has no model {number}: see {layout.models}")
    owned = OwnedFolder(output, is_output=False)
    owned.require_writable()
    owned.require_free((TRANSFORM,), _SCOPE)
    return read_stored_model(layout.model(number), number=number, run=StoredRun(output)), owned


def _reset(
    record: TransformRecord, number: int, output: Path, was_metric: bool
) -> tuple[Found, TransformRecord, Change]:
    past = record.of(number)
    if not past.steps:
        raise InputError(
            f"the model {number} of {output} is in the frame it was made in: there is nothing to take back"
        )
    if past.is_cropped:
        raise InputError(
            f"the model {number} of {output} was cropped, which cannot be taken back: run the same anchorsfm "
            "reconstruct again, which makes it anew from its cache"
        )
    first, back = past.steps[0], past.similarity.inverse
    placing = next((step for step in past.steps if step.has_placed), None)
    found = Found(similarity=back, crop=Crop(), notes=(f"took back {len(past.steps)} changes",))
    change = Change(
        similarity=back,
        crop=Crop(),
        up=first.former_up,
        metric=first.former_metric,
        was_metric=was_metric,
        rescales_metres=any(step.former_metric != was_metric or _measured(step.asked) for step in past.steps),
        place=None if placing is None else without_place(Layout(output), number, placing.former_georeference),
    )
    return found, record.without(number), change


def _measured(asked: dict[str, Any]) -> bool:
    return bool(asked.get("distance") or asked.get("camera_distance") or asked.get("gps"))


def _up_after(found: Found, former: dict[str, Any] | None) -> dict[str, Any] | None:
    if found.up_of_positions:
        return {"source": "positions", "deviation_deg": None}
    if found.up is None:
        return former
    return {"source": found.up.source, "deviation_deg": round(found.up.deviation_deg, 2)}


def _asked(config: TransformConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if value not in (None, (), False)}
