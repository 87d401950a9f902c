"""Points of the dense cloud of a model, which trainers of radiance fields can start from."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction

_GREY = 128
"""Of clouds without colours."""


@dataclass(frozen=True, kw_only=True)
class DenseSeeds:
    """Coloured points in the frame of the model."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]


def dense_seeds(entry: StoredModel, max_points: int) -> DenseSeeds:
    """At most `max_points` of the dense cloud OUT/dense/<n>.ply beside a model OUT/sparse/<n>, the same every time.

    Raises InputError if there is none, or it cannot be read.
    """
    cloud = entry.read_cloud()
    if cloud is None:
        raise InputError(
            f"--points dense: the model in {entry.folder} has no dense cloud: reconstruct without --no-dense, or "
            "export with sparse points"
        )
    rgb = np.full((len(cloud.xyz), 3), _GREY, np.uint8) if cloud.rgb is None else cloud.rgb
    finite = np.flatnonzero(np.isfinite(cloud.xyz).all(axis=1))
    rows = finite if len(finite) <= max_points else np.random.default_rng(0).choice(finite, max_points, replace=False)
    rows = np.sort(rows)
    return DenseSeeds(xyz=cloud.xyz[rows].astype(np.float64), rgb=rgb[rows])


def with_seeds(model: Reconstruction, seeds: DenseSeeds) -> Reconstruction:
    """The model with further points behind its own, which no image observes."""
    return replace(
        model,
        points=np.concatenate([model.points, seeds.xyz]),
        rgb=np.concatenate([model.rgb, seeds.rgb]),
        error_px=np.concatenate([model.error_px, np.zeros(len(seeds.xyz))]),
    )
