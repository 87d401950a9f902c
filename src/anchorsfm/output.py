"""The output folder: what lies where, written so that a file is complete or absent."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from anchorsfm.colmap.write import write_models
from anchorsfm.densify import DenseCloud
from anchorsfm.io.ply import write_ply
from anchorsfm.io.store import Store, remove_leftovers, to_json, write_atomic
from anchorsfm.report import RunReport, UncertaintyReport
from anchorsfm.report.folder import try_page
from anchorsfm.report.json_text import report_json
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction


class OutputFolder:
    """OUT/sparse, OUT/dense, OUT/alignment, OUT/cache and the files beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "cache")
        self.report = root / "report.json"
        self.database = root / "database.db"

    def prepare(self, config: object) -> None:
        """Make the folder, check that it can be written, and record the settings.

        Raises StorageError before any work is done if it cannot be.
        """
        if self.root.exists() and not self.root.is_dir():
            raise StorageError(f"{self.root} is a file, not a folder: choose another --output")
        remove_leftovers(self.root)
        write_atomic(self.root / "config.yaml", yaml.safe_dump(plain(config), sort_keys=False))

    def write_alignments(self, models: Sequence[Reconstruction], names: Sequence[str]) -> None:
        """Poses and intrinsics of each aligned component before any adjustment, as COLMAP models without points."""
        write_models(self.root / "alignment", models, names)

    def write_models(self, models: Sequence[Reconstruction], names: Sequence[str]) -> None:
        """The final models, largest first, as sparse/0, sparse/1, ..."""
        write_models(self.root / "sparse", models, names)

    def write_dense(self, clouds: Iterable[DenseCloud]) -> None:
        """Dense clouds as dense/0.ply, dense/1.ply, ... numbered like the models."""
        shutil.rmtree(self.root / "dense", ignore_errors=True)
        for number, cloud in enumerate(clouds):
            write_ply(self.root / "dense" / f"{number}.ply", cloud.xyz, cloud.rgb)

    def write_uncertainty(self, models: Sequence[UncertaintyReport]) -> None:
        """Standard deviations of poses and intrinsics of all models."""
        write_atomic(self.root / "uncertainty.json", to_json(list(models)))

    def write_report(self, report: RunReport, models: Sequence[Reconstruction], progress: Progress) -> None:
        """Everything the run says about itself: report.json, uncertainty.json, and report.html made from the first.

        A page that cannot be made is a warning.
        """
        self.write_uncertainty([model.uncertainty for model in report.models])
        write_atomic(self.report, report_json(report))
        try_page(self.root, models, progress)


def plain(value: Any) -> Any:
    """Nested dataclasses, enums and paths as what YAML can say."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def changed_settings(config: object, default: object) -> tuple[str, ...]:
    """Dotted names of the settings that are not the default."""
    return tuple(_changed(plain(config), plain(default), ""))


def _changed(value: Any, default: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(default, dict):
        for key, item in value.items():
            yield from _changed(item, default.get(key), f"{name}.{key}" if name else key)
    elif value != default:
        yield name
