"""transform.json: how the frames of the models differ from those they were made in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.geometry.similarity import Similarity, require_similarity
from anchorsfm.io.json_files import checked, read_json
from anchorsfm.scene.errors import InputError
from anchorsfm.transform.find import Crop
from anchorsfm.transform.positions import FROM_PHOTOGRAPHS

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    asked: dict[str, Any]
    """Its options."""
    found: tuple[dict[str, Any], ...]
    """What it found: source and deviation of up, factor of scale ..."""
    matrix: tuple[tuple[float, ...], ...]
    """4 x 4: homogeneous coordinates in the former frame to those in the new one."""
    crop_box: tuple[float, ...] = ()
    crop_radius: float | None = None
    former_up: dict[str, Any] | None = None
    """What the report said of up before; None: nothing, as the frame was any."""
    former_metric: bool = False
    """Whether the unit was the metre before."""
    former_georeference: dict[str, Any] | None = None
    """What the report said of recorded positions before, where the photographs' have placed the model."""

    @property
    def similarity(self) -> Similarity:
        return Similarity.of_matrix(np.array(self.matrix, np.float64))

    @property
    def crop(self) -> Crop:
        return Crop(box=self.crop_box, radius=self.crop_radius)

    @property
    def has_placed(self) -> bool:
        """Whether positions that photographs record gave the model a place on the Earth."""
        return any((one.get("what"), one.get("source")) == ("positions", FROM_PHOTOGRAPHS) for one in self.found)


@dataclass(frozen=True, kw_only=True)
class ModelTransform:
    """All changes of one model."""

    number: int
    matrix: tuple[tuple[float, ...], ...]
    """4 x 4: homogeneous coordinates in the frame the model was made in to those it has now."""
    steps: tuple[Step, ...]
    """The oldest first."""

    @property
    def similarity(self) -> Similarity:
        return Similarity.of_matrix(np.array(self.matrix, np.float64))

    @property
    def is_cropped(self) -> bool:
        return any(not step.crop.is_everything for step in self.steps)

    def keeps(self, xyz: Float[np.ndarray, "point 3"]) -> Bool[np.ndarray, "point"]:
        """Which places of the frame that the model has now no crop has removed."""
        kept = np.ones(len(xyz), bool)
        for step in reversed(self.steps):
            kept &= step.crop.keeps(xyz)
            xyz = step.similarity.inverse.points(xyz)
        return kept


@dataclass(frozen=True, kw_only=True)
class TransformRecord:
    """The content of transform.json."""

    schema_version: int = SCHEMA_VERSION
    models: tuple[ModelTransform, ...] = field(default=())
    """Those that were changed."""

    def of(self, number: int) -> ModelTransform:
        """The changes of a model."""
        nothing = ModelTransform(number=number, matrix=_rows(Similarity.of()), steps=())
        return next((model for model in self.models if model.number == number), nothing)

    def with_step(self, number: int, step: Step) -> "TransformRecord":
        """With one more change of a model."""
        before = self.of(number)
        matrix = _rows(step.similarity.after(before.similarity))
        return self._with(replace(before, matrix=matrix, steps=(*before.steps, step)))

    def without(self, number: int) -> "TransformRecord":
        """With a model that is as it was made."""
        return replace(self, models=tuple(model for model in self.models if model.number != number))

    def _with(self, changed: ModelTransform) -> "TransformRecord":
        models = [*self.without(changed.number).models, changed]
        return replace(self, models=tuple(sorted(models, key=lambda model: model.number)))


def make_step(
    asked: dict[str, Any],
    found: tuple[dict[str, Any], ...],
    similarity: Similarity,
    crop: Crop,
    *,
    former_up: dict[str, Any] | None,
    former_metric: bool,
    former_georeference: dict[str, Any] | None = None,
) -> Step:
    """A command on record."""
    return Step(
        asked=asked,
        found=found,
        matrix=_rows(similarity),
        crop_box=crop.box,
        crop_radius=crop.radius,
        former_up=former_up,
        former_metric=former_metric,
        former_georeference=former_georeference,
    )


def read_transforms(path: Path) -> TransformRecord:
    """The content of a transform.json; of one that is not there, none.

    Raises InputError if it is damaged or of another version.
    """
    if not path.exists():
        return TransformRecord()
    try:
        content = checked(read_json(path), TransformRecord)
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"it has schema_version {content['schema_version']}, this program reads {SCHEMA_VERSION}")
        return TransformRecord(models=tuple(_model(entry) for entry in content["models"]))
    except ValueError as error:
        raise InputError(
            f"{path} cannot be used: {error}; run `anchorsfm reconstruct` again, which makes the models anew from its "
            "cache"
        ) from error


def _model(entry: Mapping[str, Any]) -> ModelTransform:
    steps = tuple(
        Step(
            asked=step["asked"],
            found=tuple(step["found"]),
            matrix=_checked_matrix(step["matrix"]),
            crop_box=tuple(map(float, step["crop_box"])),
            crop_radius=None if step["crop_radius"] is None else float(step["crop_radius"]),
            former_up=step["former_up"],
            former_metric=step["former_metric"],
            former_georeference=step["former_georeference"],
        )
        for step in entry["steps"]
    )
    return ModelTransform(number=entry["number"], matrix=_checked_matrix(entry["matrix"]), steps=steps)


def _checked_matrix(rows: Any) -> tuple[tuple[float, ...], ...]:
    matrix = np.array(rows, np.float64)
    require_similarity(matrix)
    return _tuples(matrix)


def _rows(similarity: Similarity) -> tuple[tuple[float, ...], ...]:
    return _tuples(similarity.matrix)


def _tuples(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
