"""The output folder: what lies where, written so that a file is complete or absent."""

import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from anchorsfm.colmap.meshing import delaunay_mesh, poisson_mesh
from anchorsfm.colmap.write import write_models
from anchorsfm.dense.cells import DenseCloud
from anchorsfm.dense.maps import CleanView
from anchorsfm.io.ply import write_ply
from anchorsfm.io.store import Store, remove_leftovers, to_json, write_atomic
from anchorsfm.report import RunReport, UncertaintyReport
from anchorsfm.report.folder import try_page
from anchorsfm.report.json_text import report_json
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction


class OutputFolder:
    """OUT/sparse, OUT/dense, OUT/alignment, OUT/cache and the files beside them."""

    def __init__(self, root: Path, progress: Progress = SILENT) -> None:
        self.root = root
        self.store = Store(root / "cache", progress)
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

    def clear_dense(self) -> None:
        """Remove the dense output of an earlier run."""
        shutil.rmtree(self.root / "dense", ignore_errors=True)

    def write_cloud(self, number: int, cloud: DenseCloud) -> None:
        """The dense cloud of a model as dense/NUMBER.ply."""
        path = self.root / "dense" / f"{number}.ply"
        write_ply(path, cloud.xyz, cloud.rgb, normal=cloud.normal, confidence=cloud.confidence)

    def write_mesh(self, number: int, method: str, cloud: DenseCloud) -> None:
        """A surface as dense/NUMBER-mesh.ply: of the dense cloud (poisson) or of the sparse points (delaunay)."""
        mesh = self.root / "dense" / f"{number}-mesh.ply"
        if method == "poisson" and len(cloud.xyz):
            poisson_mesh(self.root / "dense" / f"{number}.ply", mesh, len(cloud.xyz))
        elif method == "delaunay":
            delaunay_mesh(self.root / "sparse" / str(number), mesh)

    def write_depth_map(self, name: str, clean: CleanView) -> None:
        """Depth and confidence of an image, as dense/depth/NAME.depth.npy and NAME.confidence.npy.

        Arrays (height, width) of float32. Depth is along the optical axis in units of the model, 0 where none was kept;
        confidence is the number of agreeing views, each weighted by its correlation, 0 where none was kept. Pixels are
        those of the pinhole picture that cameras.json describes, row 0 at the top.
        """
        folder = self.root / "dense" / "depth"
        kept = clean.view.confidence > 0
        for kind, values in (("depth", np.where(kept, clean.view.depth, 0)), ("confidence", clean.view.confidence)):
            buffer = io.BytesIO()
            np.save(buffer, values.astype(np.float32), allow_pickle=False)
            write_atomic(folder / f"{name}.{kind}.npy", buffer.getvalue())

    def write_depth_cameras(self, cameras: Mapping[str, object]) -> None:
        """The cameras of all depth maps by image name, as dense/depth/cameras.json."""
        write_atomic(self.root / "dense" / "depth" / "cameras.json", to_json(cameras))

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
