"""Readers of exported data sets, written from what trainers document, with nothing of the library under test.

COLMAP's binary format: https://colmap.github.io/format.html. Each reader keeps the habits of one trainer.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

_PINHOLES = {0: 3, 1: 4}
"""Model ids of SIMPLE_PINHOLE and PINHOLE with their numbers of parameters."""


@dataclass(frozen=True)
class View:
    name: str
    picture: Path
    mask: Path | None
    camera_from_world: np.ndarray
    """(4, 4), x right, y down, z forward."""
    intrinsics: np.ndarray
    size_wh: tuple[int, int]

    def project(self, points: np.ndarray) -> np.ndarray:
        local = points @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]
        return (local @ self.intrinsics.T)[:, :2] / local[:, 2:]


def _binary_model(folder: Path) -> tuple[dict, list, np.ndarray]:
    cameras, data = {}, memoryview((folder / "cameras.bin").read_bytes())
    at = 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        camera_id, model, width, height = struct.unpack_from("<iiQQ", data, at)
        assert model in _PINHOLES, "only undistorted data sets are supported"
        params = struct.unpack_from(f"<{_PINHOLES[model]}d", data, at + 24)
        at += 24 + 8 * len(params)
        cameras[camera_id] = ((params[0], *params) if model == 0 else params, (width, height))
    images, data = [], memoryview((folder / "images.bin").read_bytes())
    at = 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        _, qw, qx, qy, qz, tx, ty, tz, camera_id = struct.unpack_from("<i7di", data, at)
        end = bytes(data[at + 64 :]).index(0) + at + 64
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = Rotation.from_quat([qx, qy, qz, qw]).as_matrix(), [tx, ty, tz]
        images.append((bytes(data[at + 64 : end]).decode(), pose, cameras[camera_id]))
        at = end + 9 + 24 * struct.unpack_from("<Q", data, end + 1)[0]
    points, data = [], memoryview((folder / "points3D.bin").read_bytes())
    at = 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        points.append(struct.unpack_from("<Q3d3Bd", data, at)[1:4])
        at += 51 + 8 * struct.unpack_from("<Q", data, at + 43)[0]
    return cameras, images, np.array(points)


def read_graphdeco(scene: Path) -> tuple[list[View], np.ndarray]:
    """3D Gaussian splatting by its authors: pictures by the last part of their name, angles of view for intrinsics, so
    that the principal point is the middle; images are told apart by what precedes the first dot."""
    _, images, points = _binary_model(scene / "sparse" / "0")
    views = []
    for name, pose, (params, (width, height)) in images:
        angle_x, angle_y = 2 * np.arctan(width / 2 / params[0]), 2 * np.arctan(height / 2 / params[1])
        fx, fy = width / 2 / np.tan(angle_x / 2), height / 2 / np.tan(angle_y / 2)
        intrinsics = np.array([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]])
        base = PurePosixPath(name).name
        picture = scene / "images" / base
        assert Image.open(picture).size == (width, height)
        views.append(View(base.split(".")[0], picture, None, pose, intrinsics, (width, height)))
    assert len({view.name for view in views}) == len(views)
    return views, points


def read_gsplat(folder: Path) -> tuple[list[View], np.ndarray]:
    """gsplat's example: read by pycolmap; files under images/ are paired with names by their sorted order."""
    import pycolmap

    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    files = sorted(p.relative_to(folder / "images").as_posix() for p in (folder / "images").rglob("*") if p.is_file())
    assert files == sorted(image.name for image in model.images.values())
    views = []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        camera = model.cameras[image.camera_id]
        assert camera.model in (pycolmap.CameraModelId.PINHOLE, pycolmap.CameraModelId.SIMPLE_PINHOLE)
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        size = (camera.width, camera.height)
        views.append(View(image.name, folder / "images" / image.name, None, pose, camera.calibration_matrix(), size))
    return views, np.array([point.xyz for point in model.points3D.values()])


def read_nerfstudio_colmap(folder: Path, *, masks: bool) -> list[View]:
    """nerfstudio's COLMAP parser with --colmap-path sparse/0 (--masks-path masks): one camera model for all images."""
    _, images, _ = _binary_model(folder / "sparse" / "0")
    views = []
    for name, pose, ((fx, fy, cx, cy), size) in images:
        mask = (folder / "masks" / name).with_suffix(".png") if masks else None
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        views.append(View(name, folder / "images" / name, mask, pose, intrinsics, size))
    return views


def read_transforms(folder: Path) -> tuple[dict, list[tuple[dict, np.ndarray]]]:
    """nerfstudio's transforms.json: intrinsics at the top or in every frame, and world_from_cam with OpenGL's axes."""
    content = json.loads((folder / "transforms.json").read_text())
    shared = {key: value for key, value in content.items() if key != "frames"}
    frames = [(shared | frame, np.array(frame["transform_matrix"])) for frame in content["frames"]]
    assert all(("mask_path" in frame) == ("mask_path" in frames[0][0]) for frame, _ in frames)
    for frame, _ in frames:
        assert {"fl_x", "fl_y", "cx", "cy", "w", "h"} <= set(frame)
    return content, frames
