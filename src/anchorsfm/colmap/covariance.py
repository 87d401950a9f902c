"""How well an adjustment determines its intrinsics: covariances by PyCOLMAP's estimator.

The covariance of the least squares problem is that of unit weight (errors of one pixel); it is scaled by the variance
that the residuals themselves show. Systematic errors (a wrong lens model, matches that err together) are not in it: it
is a lower bound, which the principal point is settled with (`tracks.principal_point`). What a model reports about
itself, errors of the model included, is in `tracks.uncertainty`.
"""

import numpy as np
import pycolmap
from jaxtyping import Float

from anchorsfm.colmap.bundle import BundleOptions, BundleProblem, Held, bundle_problem
from anchorsfm.colmap.quiet import silent
from anchorsfm.scene.edit import with_rigs
from anchorsfm.scene.reconstruction import Reconstruction

_DAMPING = 1e-8
"""Added to the diagonal of the normal equations."""


def intrinsics_covariances(
    model: Reconstruction, options: BundleOptions, held: Held, variance_px2: float
) -> list[Float[np.ndarray, "param param"] | None]:
    """Covariance of the parameters of every camera in COLMAP's order; rows of parameters that are not refined are 0.

    None for cameras that are held, and where the problem is too badly determined for an estimate.
    """
    # PyCOLMAP knows no covariances with rigs; views by themselves are less well determined
    problem = bundle_problem(with_rigs(model, None), options, held)
    wanted = pycolmap.BACovarianceOptions()
    wanted.params, wanted.damping = pycolmap.BACovarianceOptionsParams.ALL, _DAMPING
    with silent():
        estimate = pycolmap.estimate_ba_covariance(wanted, problem.model, problem.adjuster)
    return [
        None if estimate is None or held.camera[row] else _camera_covariance(estimate, problem, row, variance_px2)
        for row in range(len(model.cameras))
    ]


def _camera_covariance(
    estimate: pycolmap.BACovariance, problem: BundleProblem, row: int, variance_px2: float
) -> Float[np.ndarray, "param param"] | None:
    camera = problem.model.cameras[row + 1]
    refine = problem.options
    free = [k for k in camera.focal_length_idxs() if refine.refine_focal]
    free += [k for k in camera.principal_point_idxs() if refine.refine_principal_point]
    free += [k for k in camera.extra_params_idxs() if refine.refine_distortion]
    covariance = estimate.get_other_params_cov(camera.params)
    if not free or covariance is None or len(covariance) != len(free):
        return None
    full = np.zeros((len(camera.params), len(camera.params)))
    full[np.ix_(sorted(free), sorted(free))] = variance_px2 * np.asarray(covariance)
    return full
