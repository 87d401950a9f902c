"""An output folder beside its models: the record of the run and how precise its models are, read when asked for."""

from functools import cached_property
from pathlib import Path
from typing import Any

from anchorsfm.io.layout import Layout
from anchorsfm.results.reading import read_image_root, read_report, read_uncertainties, read_ups
from anchorsfm.results.record import PoseDeviation


class StoredRun:
    """The output folder of a finished run, or another folder that is laid out like one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root)

    @property
    def has_report(self) -> bool:
        """Whether there is a report.json, of whatever content."""
        return self.layout.report.is_file()

    @cached_property
    def report(self) -> dict[str, Any]:
        """The whole report.json.

        Raises InputError if it is missing, damaged, of another version, or a key is missing or cannot be used.
        """
        return read_report(self.layout.report)

    @cached_property
    def recorded_image_root(self) -> Path | None:
        """Folder that image names were relative to when the run was made; None: not recorded.

        The rest of report.json may be of another version. Raises InputError if it cannot be read.
        """
        return read_image_root(self.layout.report) if self.has_report else None

    @cached_property
    def ups(self) -> tuple[bool, ...]:
        """Of every model, whether z is up.

        The rest of report.json may be of another version. Raises InputError if it cannot be read.
        """
        return read_ups(self.layout.report)

    @cached_property
    def precision(self) -> tuple[dict[str, PoseDeviation], ...]:
        """Deviations of the poses of every model by image name, from uncertainty.json or, without one, report.json.

        Raises InputError if the file cannot be used.
        """
        return tuple({image.name: image for image in entry} for entry in read_uncertainties(self.layout))


def run_of(model: Path) -> StoredRun | None:
    """The output folder that the folder of a model lies in; None if there is no sign of one.

    It is the nearest of that folder and the two above it that has a report.json, or the model in its `sparse`.
    """
    model = model.resolve()
    for candidate in (model, *model.parents[:2]):
        run = StoredRun(candidate)
        if run.has_report or run.layout.models in (model, model.parent):
            return run
    return None
