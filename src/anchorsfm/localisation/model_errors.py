"""What errors of a model add to those of a pose that was found in it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.results.model import StoredModel
from anchorsfm.scene.edit import view_of_image


@dataclass(frozen=True, kw_only=True)
class ModelErrors:
    """How far a model may be off, as its run has said.

    A photograph is placed by points that some of the model's cameras have made, and is off as they are: by the mean of
    their variances, each weighed by how many of the points it sees.
    """

    view: Int[np.ndarray, "obs"]
    """Of each observation of the model, and its point."""
    point: Int[np.ndarray, "obs"]
    num_points: int
    position: Float[np.ndarray, "view"]
    """Standard deviations of the cameras, units of the model; NaN where nothing is known."""
    rotation_deg: Float[np.ndarray, "view"]

    @staticmethod
    def of(stored: StoredModel) -> "ModelErrors":
        """Of a finished model; nothing is known of those of other programs, and of very large ones."""
        model, said = stored.model, [stored.precision.get(name) for name in stored.view_names]
        return ModelErrors(
            view=view_of_image(model)[model.tracks.obs_image],
            point=model.tracks.obs_point,
            num_points=len(model.points),
            position=np.array([np.nan if pose is None else pose.position for pose in said], np.float64),
            rotation_deg=np.array([np.nan if pose is None else pose.rotation_deg for pose in said], np.float64),
        )

    def deviations(self, points: Int[np.ndarray, "inlier"]) -> tuple[float, float] | None:
        """Standard deviations of position (units of the model) and rotation (degrees) of a photograph that shows some
        points; None where they are not known."""
        shown = np.zeros(self.num_points, bool)
        shown[points] = True
        count = np.bincount(self.view[shown[self.point]], minlength=len(self.position))
        weight = np.where(np.isfinite(self.position) & np.isfinite(self.rotation_deg), count, 0)
        if not weight.sum():
            return None
        position, rotation_deg = (
            float(np.sqrt(np.average(np.nan_to_num(values) ** 2, weights=weight)))
            for values in (self.position, self.rotation_deg)
        )
        return position, rotation_deg
