"""Similarities of the world: turned, scaled and shifted as a whole."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.transforms import camera_centres

_LARGEST = 1e100


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """x becomes scale R x + t with pose [R | t]."""

    scale: float
    pose: Float[np.ndarray, "3 4"]

    @staticmethod
    def of(
        rotation: Float[np.ndarray, "3 3"] | None = None,
        shift: Float[np.ndarray, "3"] | None = None,
        scale: float = 1.0,
    ) -> "Similarity":
        """From its parts; what is not given changes nothing."""
        rotation = np.eye(3) if rotation is None else rotation
        shift = np.zeros(3) if shift is None else shift
        return Similarity(scale=scale, pose=np.concatenate([rotation, shift[:, None]], axis=1))

    @staticmethod
    def of_matrix(matrix: Float[np.ndarray, "4 4"]) -> "Similarity":
        """From `matrix`; its upper left part is a rotation times a positive number."""
        scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        return Similarity.of(matrix[:3, :3] / scale, matrix[:3, 3], scale)

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        return self.pose[:, :3]

    @property
    def shift(self) -> Float[np.ndarray, "3"]:
        return self.pose[:, 3]

    @property
    def matrix(self) -> Float[np.ndarray, "4 4"]:
        """On homogeneous coordinates."""
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = self.scale * self.rotation, self.shift
        return result

    @property
    def inverse(self) -> "Similarity":
        """The one that undoes this one."""
        back = self.rotation.T
        return Similarity.of(back, -(back @ self.shift) / self.scale, 1 / self.scale)

    def after(self, first: "Similarity") -> "Similarity":
        """`first`, then this one."""
        shift = self.scale * (self.rotation @ first.shift) + self.shift
        return Similarity.of(self.rotation @ first.rotation, shift, self.scale * first.scale)

    def points(self, xyz: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Where points come to lie."""
        return self.scale * xyz @ self.rotation.T + self.shift

    def poses(self, cam_from_world: Float[np.ndarray, "*batch 3 4"]) -> Float[np.ndarray, "*batch 3 4"]:
        """Poses of the cameras that see the moved world as they saw it before."""
        turned = cam_from_world[..., :3] @ self.rotation.T
        translation = self.scale * cam_from_world[..., 3] - turned @ self.shift
        return np.concatenate([turned, translation[..., None]], axis=-1)


def between_poses(source: Float[np.ndarray, "view 3 4"], target: Float[np.ndarray, "view 3 4"]) -> Similarity:
    """The similarity that moves the world of some cameras to that of the same cameras in another frame.

    Rotations of the cameras count, and their centres: cameras on a line, and one alone, determine it too, up to the
    scale in the second case.
    """
    u, _, vt = np.linalg.svd((np.swapaxes(target[:, :, :3], 1, 2) @ source[:, :, :3]).sum(axis=0))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    here, there = camera_centres(source), camera_centres(target)
    middle, spread = here.mean(axis=0), here - here.mean(axis=0)
    extent = float((spread**2).sum())
    aim = (there - there.mean(axis=0)) @ rotation
    scale = float((aim * spread).sum()) / extent if extent > 0 else 1.0
    return Similarity.of(rotation, there.mean(axis=0) - scale * rotation @ middle, scale)


def require_similarity(matrix: Float[np.ndarray, "..."]) -> None:
    """Raises ValueError if an array is not 4 x 4, or leads from no frame to another one."""
    if matrix.shape != (4, 4):
        raise ValueError("a matrix of it is not 4 x 4")
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > _LARGEST:
        raise ValueError("a matrix of it has no numbers that can be computed with")
    square = matrix[:3, :3] @ matrix[:3, :3].T
    scale = np.trace(square) / 3
    is_similarity = np.linalg.det(matrix[:3, :3]) > 0 and np.abs(square - scale * np.eye(3)).max() < 1e-6 * scale
    if not is_similarity or (matrix[3] != [0, 0, 0, 1]).any():
        raise ValueError("a matrix of it is no similarity")
