"""What localisation writes: the placed photographs as a COLMAP model, all results as JSON, the poses as TUM lines."""

from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.colmap.write import write_models
from anchorsfm.export.trajectories import export_tum, tum_lines
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.io.layout import LOCALISED, SPARSE
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.localisation.run import Localisation, LocalisedImage
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.reconstruction import Reconstruction, Tracks

_DEVIATIONS = "deviations.txt"
_TUM = ("poses.txt", "names.txt", _DEVIATIONS)
_PARTS = (LOCALISED, *_TUM, SPARSE)


class LocalisationFolder:
    """A folder for the poses: new, empty, or of an earlier localisation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._owned = OwnedFolder(root)

    def require_ready(self) -> None:
        """Raise StorageError, before any work is done, if results cannot be put here or would replace others."""
        self._owned.require_ours()
        files = self._owned.files()
        if files and LOCALISED not in files:
            raise StorageError(f"{self.root} holds results of another command: choose another --output")
        self._owned.require_writable()
        self._owned.complete()
        self._owned.require_free((LOCALISED, *_TUM), _PARTS)

    def write(self, found: Localisation, stored: StoredModel) -> None:
        """Publish the results as a whole. Raises StorageError if that cannot be done."""
        names = tuple(found.placed)
        with self._owned.publication() as publication:
            if names:
                model = placed_model(list(found.placed.values()), stored.model)
                write_models(publication.path / SPARSE, [model], names)
                export_tum(StoredModel(folder=stored.folder, model=model, names=names), publication.path)
                write_atomic(publication.path / _DEVIATIONS, _deviation_lines(found))
            write_atomic(publication.path / LOCALISED, to_json(_record(found)))
            publication.publish(_PARTS)


def placed_model(images: list[LocalisedImage], model: Reconstruction) -> Reconstruction:
    """The placed photographs as a model with the points that they see, a camera each."""
    point = np.concatenate([image.point for image in images if image.point is not None])
    view = np.repeat(np.arange(len(images)), [image.num_inliers for image in images])
    xy = np.concatenate([image.xy_px for image in images if image.xy_px is not None])
    order = np.lexsort((view, point))
    used, row = np.unique(point[order], return_inverse=True)
    return Reconstruction(
        image_index=np.arange(len(images)),
        cam_from_world=np.array([image.cam_from_world for image in images]),
        cameras=tuple(image.camera for image in images if image.camera is not None),
        camera_index=np.arange(len(images)),
        points=model.points[used],
        rgb=model.rgb[used],
        error_px=np.full(len(used), np.nan),
        tracks=Tracks(obs_point=row.reshape(-1).astype(np.int64), obs_image=view[order], obs_xy=xy[order]),
    )


def _deviation_lines(found: Localisation) -> str:
    """Standard deviations beside the TUM lines: one line for each of them, with its time."""
    placed = list(found.placed.items())
    lines = ["# timestamp sx sy sz (axes of the model) rx ry rz (axes of the camera, degrees)"]
    for stamp, row in tum_lines([name for name, _ in placed]):
        position, rotation_deg = axis_deviations(placed[row][1])
        lines.append(" ".join([stamp, *(f"{value:.6g}" for value in (*position, *rotation_deg))]))
    return "\n".join([*lines, ""])


def axis_deviations(image: LocalisedImage) -> tuple[list[float], list[float]]:
    """Of a placed photograph: of its position along the axes of the model, and of its rotation vector (degrees) along
    those of the camera."""
    assert image.covariance is not None
    deviation = np.sqrt(np.diag(image.covariance))
    return deviation[3:].tolist(), np.degrees(deviation[:3]).tolist()


def _record(found: Localisation) -> dict[str, Any]:
    return {
        "model": str(found.model.resolve()),
        "num_placed": len(found.placed),
        "images": [_entry(image) for image in found.images],
    }


def _entry(image: LocalisedImage) -> dict[str, Any]:
    pose = image.cam_from_world
    entry: dict[str, Any] = {"name": image.name, "status": "refused" if pose is None else "placed"}
    if pose is None:
        return entry | {"reason": image.reason, "num_matches": image.num_matches}
    return entry | {
        "cam_from_world": pose.tolist(),
        "centre": camera_centres(pose).tolist(),
        "position_deviation": image.position_deviation,
        "rotation_deviation_deg": image.rotation_deviation_deg,
        "position_deviation_axes": axis_deviations(image)[0],
        "rotation_deviation_axes_deg": axis_deviations(image)[1],
        "covariance": image.covariance,
        "has_model_errors": image.has_model_errors,
        "camera": image.camera,
        "focal_source": image.focal_source,
        "focal_deviation_px": image.focal_deviation_px,
        "num_inliers": image.num_inliers,
        "num_matches": image.num_matches,
        "error_px": image.error_px,
    }
