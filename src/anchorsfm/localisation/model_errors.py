"""What errors of a model add to those of a pose that was found in it (docs/method.md, Uncertainty).

Where it is known what errors the cameras have together (`tracks.error_modes`), each mode is followed to first order:
the points come to lie elsewhere, each where its observations say, and the pose with them. In other models with
deviations a pose is off as the cameras that have made its points are: by the mean of their variances.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.localisation.pose import PlacedView
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.edit import select_points, view_of_image
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.tracks.linearised import linearise, solve
from anchorsfm.tracks.measure import derivatives_by_cameras
from anchorsfm.tracks.residuals import RAYLEIGH_MEDIAN, loss_scale_px


@dataclass(frozen=True, kw_only=True)
class ModelErrors:
    """How far a model may be off, as its run has said."""

    model: Reconstruction
    view: Int[np.ndarray, "obs"]
    """Of each observation of the model."""
    position: Float[np.ndarray, "view"]
    """Standard deviations of the cameras, units of the model; NaN where nothing is known."""
    rotation_deg: Float[np.ndarray, "view"]
    modes: ErrorModes | None
    """What errors they have together."""

    @staticmethod
    def of(stored: StoredModel) -> "ModelErrors":
        """Of a finished model; nothing is known of those of other programs, and of very large ones."""
        model, said = stored.model, [stored.precision.get(name) for name in stored.view_names]
        return ModelErrors(
            model=model,
            view=view_of_image(model)[model.tracks.obs_image],
            position=np.array([np.nan if pose is None else pose.position for pose in said], np.float64),
            rotation_deg=np.array([np.nan if pose is None else pose.rotation_deg for pose in said], np.float64),
            modes=stored.errors,
        )

    def covariance(
        self, view: PlacedView, point: Int[np.ndarray, "inlier"], xy_px: Float[np.ndarray, "inlier 2"]
    ) -> Float[np.ndarray, "6 6"] | None:
        """What the errors add to the covariance of (rotation vector in the camera's axes, centre); None: unknown.

        Args:
            view: a photograph.
            point: rows of the model's points that agree with it, each once.
            xy_px: where it shows them, original pixels.
        """
        if self.modes is not None:
            return _followed(self.model, self.modes, view, point, xy_px)
        found = self.deviations(point)
        if found is None:
            return None
        position, rotation_deg = found
        return np.diag(np.repeat([np.radians(rotation_deg) ** 2 / 3, position**2 / 3], 3))

    def deviations(self, points: Int[np.ndarray, "inlier"]) -> tuple[float, float] | None:
        """Standard deviations of position (units of the model) and rotation (degrees), as the cameras that see the
        points have them, weighed by how many of them each sees; None where they are not known."""
        shown = np.zeros(len(self.model.points), bool)
        shown[points] = True
        count = np.bincount(self.view[shown[self.model.tracks.obs_point]], minlength=len(self.position))
        weight = np.where(np.isfinite(self.position) & np.isfinite(self.rotation_deg), count, 0)
        if not weight.sum():
            return None
        position, rotation_deg = (
            float(np.sqrt(np.average(np.nan_to_num(values) ** 2, weights=weight)))
            for values in (self.position, self.rotation_deg)
        )
        return position, rotation_deg


def _followed(
    model: Reconstruction,
    modes: ErrorModes,
    view: PlacedView,
    point: Int[np.ndarray, "inlier"],
    xy_px: Float[np.ndarray, "inlier 2"],
) -> Float[np.ndarray, "6 6"]:
    """Sum over modes of the squared steps of the pose."""
    order = np.argsort(point)
    shown = np.zeros(len(model.points), bool)
    shown[point] = True
    seen = select_points(model, shown[model.tracks.obs_point])  # its points are in the order of their rows
    photograph = Reconstruction(
        image_index=np.zeros(1, np.int64),
        cam_from_world=view.cam_from_world[None],
        cameras=(view.camera,),
        camera_index=np.zeros(1, np.int64),
        points=seen.points,
        rgb=seen.rgb,
        error_px=seen.error_px,
        tracks=Tracks(obs_point=np.arange(len(point)), obs_image=np.zeros(len(point), np.int64), obs_xy=xy_px[order]),
    )
    lin, noise_px = linearise(photograph, loss_scale_px(photograph, 1.0)), view.error_px / RAYLEIGH_MEDIAN
    by_unknown = lin.by_unknown.toarray().reshape(-1, 2, lin.by_unknown.shape[1])
    adjusted = np.flatnonzero(view.open_deviations > 0)
    by_adjusted = np.concatenate([by_unknown[:, :, :6], by_unknown[:, :, 6 + adjusted]], axis=2)
    weighed = lin.weight[:, None, None] ** 2 * by_adjusted
    by_shift = np.zeros((len(point), by_adjusted.shape[2], 3))
    by_shift[lin.point] = np.einsum("nik,nij->nkj", weighed, lin.by_point)
    steps = np.concatenate([modes.poses.reshape(len(modes.params), -1), modes.params], axis=1)
    gradient = derivatives_by_cameras(seen, by_shift, loss_scale_px(seen, 1.0)) @ steps.T
    if view.camera in model.cameras:  # it errs with the model's
        first = sum(len(camera.params) for camera in model.cameras[: model.cameras.index(view.camera)])
        of_camera = modes.params[:, first : first + len(view.camera.params)]
        gradient += np.einsum("nik,nip->kp", weighed, by_unknown[:, :, 6:]) @ of_camera.T
    expected = np.append(np.zeros(6), (noise_px / view.open_deviations[adjusted]) ** 2)
    step = -solve(np.einsum("nik,nil->kl", weighed, by_adjusted) + np.diag(expected), gradient)[:6]
    return np.asarray(step @ step.T)
