"""Models with z up: their own frame is arbitrary, and any rotation of it as good."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.upright import (
    Upward,
    level_rotation,
    normals_of,
    up_of_cameras,
    up_of_gravity,
    up_of_manhattan,
    up_of_plane,
)
from anchorsfm.mapping.config import UpMode
from anchorsfm.scene.edit import moved
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.focal_prior import JudgedModel


def find_up(model: Reconstruction, mode: UpMode, down: Float[np.ndarray, "image 3"] | None = None) -> Upward:
    """Up of a model; what phones recorded, or else the cameras say, where its points do not show what `mode` asks for.

    `down`: of every image, as in `ImageSet`.
    """
    best, found = up_of_cameras(model.cam_from_world, model.points), None
    if down is not None:
        best = up_of_gravity(model.cam_from_world, down[model.image_index], best.direction) or best
    if mode == "plane":
        found = up_of_plane(model.points, best.direction)
    elif mode == "manhattan":
        found = up_of_manhattan(normals_of(model.points), best.direction)
    return found or best


def levelled(
    judged: JudgedModel, mode: UpMode, down: Float[np.ndarray, "image 3"] | None = None
) -> tuple[JudgedModel, Upward]:
    """A model turned about its origin so that z is up and, as far as that allows, y where the cameras look."""
    model = judged.result.model
    up = find_up(model, mode, down)
    turn = Similarity.of(level_rotation(model.cam_from_world, up.direction))
    result = replace(judged.result, model=moved(model, 1.0, turn.pose))
    return JudgedModel(result=result, uncertainty=judged.uncertainty.moved(turn)), up
