"""Poses and intrinsics that the user knows, read from a COLMAP model and matched to the photographs by name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import PositionPriors, RotationPriors
from anchorsfm.colmap.cameras import distortion_px, focal_length_px, normalised_from_pixels, principal_point_px
from anchorsfm.colmap.models import find_models, read_cameras
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.pose_files import Entry, read_pose_file
from anchorsfm.scene.alignment import AlignmentResult, KnownImage
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.reconstruction import Camera

_SMALL = 0.01
"""Distortion below this share of the width does no harm to the front end, and is left to the adjustment."""


@dataclass(frozen=True, kw_only=True)
class KnownCameras:
    """What is known, by index in the ImageSet."""

    config: KnownConfig
    poses: dict[int, np.ndarray]
    """Image -> cam_from_world (3, 4)."""
    cameras: dict[int, Camera]
    """Row of the ImageSet's cameras -> intrinsics in original pixels."""
    camera_index: Int[np.ndarray, "image"]
    exact: frozenset[int] = frozenset()
    """Rows of cameras that are never adjusted, whatever the settings say: we made their pictures."""

    def with_priors(self, images: ImageSet) -> ImageSet:
        """The photographs with the known focal lengths and distortions as priors."""
        focal_px, distortion = images.focal_prior_px.copy(), np.full((images.num_images, 2), np.nan)
        deviation = None if images.focal_deviation is None else images.focal_deviation.copy()
        is_known = np.isin(images.camera_index, list(self.cameras))
        for row, camera in self.cameras.items():
            focal_px[images.camera_index == row] = focal_length_px(camera)
            distortion[images.camera_index == row] = _division_model(camera)
            if deviation is not None:
                deviation[images.camera_index == row] = np.nan
        return replace(
            images,
            focal_prior_px=focal_px,
            focal_deviation=deviation,
            distortion_prior=distortion,
            prior_is_known=is_known,
        )

    def regrouped(self, images: ImageSet) -> "KnownCameras":
        """The same of the same photographs where these share cameras in another way."""
        former = dict(zip(images.camera_index.tolist(), self.camera_index.tolist(), strict=True))
        return replace(
            self,
            cameras={row: self.cameras[old] for row, old in former.items() if old in self.cameras},
            camera_index=images.camera_index,
            exact=frozenset(row for row, old in former.items() if old in self.exact),
        )

    def for_alignment(
        self, image: Int[np.ndarray, "image"], grid: ImageGrid, focal_px: float | None = None
    ) -> list[KnownImage | None]:
        """Known quantities of some images, in grid pixels; None where nothing is known.

        `focal_px`: focal length in original pixels, kept, of the images whose camera is not known.
        """
        return [self._known_image(int(index), grid, focal_px) for index in image]

    def _known_image(self, index: int, grid: ImageGrid, given_px: float | None) -> KnownImage | None:
        camera, pose = self.cameras.get(int(self.camera_index[index])), self.poses.get(index)
        if camera is None and given_px is not None:
            return KnownImage(
                cam_from_world=pose,
                focal_px=float(given_px * grid.scale[index].mean()),
                freeze_pose=pose is not None and self.config.freeze_poses,
                freeze_intrinsics=True,
            )
        if camera is None and pose is None:
            return None
        centre = None if camera is None else grid.to_grid(index, principal_point_px(camera)[None])[0]
        return KnownImage(
            cam_from_world=pose,
            focal_px=None if camera is None else float(focal_length_px(camera) * grid.scale[index].mean()),
            principal_point_px=centre,
            freeze_pose=pose is not None and self.config.freeze_poses,
            freeze_intrinsics=camera is not None and self._is_frozen(int(self.camera_index[index])),
        )

    def exact_poses(self, alignment: AlignmentResult) -> Float[np.ndarray, "view 3 4"]:
        """The poses of an alignment, with frozen ones in full precision."""
        poses = alignment.cam_from_world.astype(np.float64)
        for view in np.flatnonzero(alignment.pose_known):
            poses[view] = self.poses[int(alignment.image_index[view])]
        return poses

    def position_priors(self, image: Int[np.ndarray, "view"]) -> PositionPriors | None:
        """Positions of the images of a model that constrain the adjustment; None unless they are asked for."""
        sigma = self.config.position_sigma
        if sigma is None or self.config.freeze_poses or not any(int(k) in self.poses for k in image):
            return None
        unknown = np.full((3, 4), np.nan)
        poses = np.stack([self.poses.get(int(k), unknown) for k in image])
        return PositionPriors(position=camera_centres(poses), sigma=sigma)

    def rotation_priors(self, image: Int[np.ndarray, "view"]) -> RotationPriors | None:
        """Rotations of the images of a model that constrain the adjustment; None unless they are asked for."""
        sigma_deg = self.config.rotation_sigma_deg
        if sigma_deg is None or self.config.freeze_poses or not any(int(k) in self.poses for k in image):
            return None
        unknown = np.full((3, 4), np.nan)
        poses = np.stack([self.poses.get(int(k), unknown) for k in image])
        return RotationPriors(rotation=poses[:, :, :3], sigma_deg=sigma_deg)

    def frozen_cameras(self, rows: Sequence[int] | Int[np.ndarray, "camera"]) -> Bool[np.ndarray, "camera"]:
        """Which cameras of the ImageSet must not be adjusted."""
        return np.array([int(row) in self.cameras and self._is_frozen(int(row)) for row in rows], bool)

    def _is_frozen(self, row: int) -> bool:
        return self.config.freeze_intrinsics or row in self.exact


def _division_model(camera: Camera) -> Float[np.ndarray, "2"]:
    """Coefficients of `scene.images.Distortion` closest to a camera; 0 if it distorts by less than `_SMALL`.

    With c a pixel from the centre and u where a pinhole would see it, |c|^2 / (c . u) = 1 + k1 |c|^2 + k2 |c|^4 is
    linear in k1, k2; offset principal points and tangential terms are left to the adjustment.
    """
    if distortion_px(camera).max() < _SMALL * camera.width:
        return np.zeros(2)
    radius = float(np.hypot(camera.width, camera.height)) / 2
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 24) * camera.width, np.linspace(-0.5, 0.5, 24) * camera.height)
    offset = np.stack([x.ravel(), y.ravel()], axis=1)
    undistorted = normalised_from_pixels(camera, offset + principal_point_px(camera)) * focal_length_px(camera)
    along = (offset * undistorted).sum(1) / radius**2
    square = (offset**2).sum(1) / radius**2
    good = np.isfinite(along) & (along > 0)
    design = np.stack([square, square**2], axis=1)[good]
    return np.linalg.lstsq(design, square[good] / along[good] - 1, rcond=None)[0]


def _entries(path: Path, images: ImageSet) -> tuple[Path, dict[str, Entry]]:
    """What a COLMAP model, or a file, knows about photographs, and where that is read."""
    if path.is_dir() or not path.exists():
        folder = find_models(path)[0]
        return folder, dict(read_cameras(folder))
    sizes = [(int(width), int(height)) for width, height in images.size_wh]
    return path, read_pose_file(path, images.names, sizes)


def read_known(config: KnownConfig, images: ImageSet) -> KnownCameras:
    """Read the known model.

    Raises InputError if it cannot be read or has no image in common with the photographs, or if its cameras are not
    at the size of the photographs.
    """
    poses: dict[int, np.ndarray] = {}
    cameras: dict[int, Camera] = {}
    for folder, entries in [_entries(config.model, images)] if config.model else []:
        for index, name in enumerate(images.names):
            if name not in entries:
                continue
            camera, pose = entries[name]
            width, height = images.size_wh[index].tolist()
            if config.use_poses and pose is not None:
                poses[index] = pose
            if camera is None:
                continue
            if (camera.width, camera.height) != (width, height):
                raise InputError(
                    f"{folder}: the camera of {name} is {camera.width}x{camera.height}, "
                    f"but the photograph is {width}x{height}"
                )
            cameras[int(images.camera_index[index])] = camera
        if not cameras and not poses:
            raise InputError(f"{folder}: none of its images is among the photographs (for instance {images.names[0]})")
    return KnownCameras(config=config, poses=poses, cameras=cameras, camera_index=images.camera_index)
