"""nerfstudio's `transforms.json` (https://docs.nerf.studio/quickstart/data_conventions.html).

- `transform_matrix` is world_from_cam with OpenGL's camera axes: x right, y up, z backward. With COLMAP's axes
  (x right, y down, z forward) as columns of R, it is [R diag(1, -1, -1) | centre].
- The world is that of the COLMAP model: `applied_transform` is the identity, and the points of `ply_file_path` are in
  the frame of the matrices. (nerfstudio's own converter also exchanges the axes of the world; its versions disagree on
  whether that is still to be applied to the points of the file, which makes no difference for the identity.)
  nerfstudio turns and scales the scene itself when it reads it.
- `cx`, `cy` are COLMAP's: nerfstudio sends the ray of the top-left pixel through (0.5, 0.5).
- OPENCV is x (1 + k1 r^2 + k2 r^4 + k3 r^6) plus tangential terms p1, p2; OPENCV_FISHEYE is the equidistant projection
  with theta (1 + k1 theta^2 + ... + k4 theta^8). `camera_model` holds for all frames.

Pictures are copied upright into `images/`, with flat names: nerfstudio ignores orientation tags and looks up reduced
pictures by the last part of their path.
"""

from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.export.copies import Copy, encode_picture, make_copies, plan_copies, require_own_folder
from anchorsfm.export.photographs import ViewPhotographs
from anchorsfm.export.seeds import DenseSeeds
from anchorsfm.geometry.cameras import PARAM_NAMES, is_fisheye
from anchorsfm.geometry.transforms import invert
from anchorsfm.io.ply import write_ply
from anchorsfm.io.store import digest, to_json, write_atomic
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera

POINTS, DENSE_POINTS = "sparse_pc.ply", "dense_pc.ply"
_VERSION = 1
_RADIAL = {"n1": "k1", "n2": "k2", "n3": "k3", "n4": "k4", "p1": "p1", "p2": "p2"}
"""nerfstudio's names of coefficients by those of `PARAM_NAMES`."""


def opengl_from_colmap_axes(cam_from_world: np.ndarray) -> np.ndarray:
    """world_from_cam (view, 4, 4) with OpenGL's camera axes from cam_from_world (view, 3, 4) with COLMAP's."""
    result = np.tile(np.eye(4), (len(cam_from_world), 1, 1))
    result[:, :3] = invert(cam_from_world)
    result[:, :3, 1:3] *= -1
    return result


def colmap_from_opengl_axes(world_from_cam: np.ndarray) -> np.ndarray:
    """cam_from_world (view, 3, 4) with COLMAP's camera axes from world_from_cam (view, 4, 4) with OpenGL's."""
    turned = np.array(world_from_cam[:, :3], np.float64)
    turned[:, :3, 1:3] *= -1
    return invert(turned)


def nerfstudio_camera(camera: Camera) -> dict[str, Any]:
    """Intrinsics in nerfstudio's names.

    Raises ValueError with the reason if nerfstudio has no such lens.
    """
    if camera.model not in PARAM_NAMES:
        raise ValueError(f"{camera.model} lenses are unknown to it")
    value = dict(zip(PARAM_NAMES[camera.model], camera.params, strict=True))
    fisheye = is_fisheye(camera.model)
    names = {"n1", "n2", "n3", "n4"} if fisheye else {"n1", "n2", "n3", "p1", "p2"}
    extra = set(value) - names - {"f", "fx", "fy", "cx", "cy"}
    if any(value[name] for name in extra):
        raise ValueError(f"{camera.model} has coefficients that it does not know")
    return {
        "camera_model": "OPENCV_FISHEYE" if fisheye else "OPENCV",
        "w": camera.width,
        "h": camera.height,
        "fl_x": value.get("fx", value.get("f")),
        "fl_y": value.get("fy", value.get("f")),
        "cx": value["cx"],
        "cy": value["cy"],
        **{_RADIAL[name]: value.get(name, 0.0) for name in sorted(names)},
    }


def export_transforms(
    entry: StoredModel,
    photographs: ViewPhotographs | None,
    target: Path,
    folder: Path,
    jpeg_quality: int,
    progress: Progress,
    seeds: DenseSeeds | None = None,
) -> list[str]:
    """Write transforms.json, points and, if they are known, upright copies of the photographs into `folder`.

    The points are `seeds`, or the sparse ones.

    Returns the paths of copies that lie finished in `target` and are not made again. Without photographs the frames are
    called `images/<name in the model>`.

    Raises:
        InputError: nerfstudio cannot express a lens, or a photograph cannot be read.
        StorageError: something cannot be written.
    """
    cameras = _cameras(entry)
    if photographs is None:
        files: list[tuple[str, str | None]] = [(f"images/{name}", None) for name in entry.view_names]
        kept: list[str] = []
    else:
        copies, kept = _copy(photographs, target, folder, jpeg_quality, progress)
        files = [(copy.image, copy.mask) for copy in copies]
    model = entry.model
    points = POINTS if seeds is None else DENSE_POINTS
    write_ply(folder / points, *((model.points, model.rgb) if seeds is None else (seeds.xyz, seeds.rgb)))
    content: dict[str, Any] = dict(cameras[0]) if len(cameras) == 1 else {"camera_model": cameras[0]["camera_model"]}
    frames = []
    matrices = opengl_from_colmap_axes(model.cam_from_world)
    for matrix, row, (image, mask) in zip(matrices, model.camera_index.tolist(), files, strict=True):
        own = {} if len(cameras) == 1 else {k: v for k, v in cameras[row].items() if k != "camera_model"}
        masked: dict[str, str] = {} if mask is None else {"mask_path": mask}
        frames.append({"file_path": image, **masked, **own, "transform_matrix": matrix})
    content |= {"applied_transform": np.eye(4)[:3], "ply_file_path": points, "frames": frames}
    write_atomic(folder / "transforms.json", to_json(content))
    return kept


def _cameras(entry: StoredModel) -> list[dict[str, Any]]:
    """Intrinsics of all cameras, which share one `camera_model`."""
    way_out = "export with --to undistorted instead, or with --to transforms from that copy"
    cameras = []
    for row, camera in enumerate(entry.model.cameras):
        example = entry.view_names[int(np.flatnonzero(entry.model.camera_index == row)[0])]
        try:
            cameras.append(nerfstudio_camera(camera))
        except ValueError as error:
            raise InputError(f"nerfstudio cannot read the camera of {example}: {error}; {way_out}") from error
        if cameras[-1]["camera_model"] != cameras[0]["camera_model"]:
            raise InputError(f"nerfstudio cannot mix fisheye ({example}) and other lenses in one scene: {way_out}")
    return cameras


def _copy(
    photographs: ViewPhotographs, target: Path, folder: Path, jpeg_quality: int, progress: Progress
) -> tuple[list[Copy], list[str]]:
    """Upright copies; files that are upright already are copied as they are."""

    def make(copy: Copy) -> dict[str, bytes]:
        header, original = photographs.headers[copy.view], photographs.images.path(copy.view)
        suffix = Path(copy.image).suffix
        if header.is_plain and original.suffix == suffix:
            files = {copy.image: photographs.original(copy.view)}
        else:
            pixels = photographs.pixels(copy.view)
            files = {copy.image: encode_picture(pixels, suffix, quality=jpeg_quality, icc_profile=header.icc_profile)}
        if copy.mask is not None:
            mask = photographs.mask(copy.view)
            assert mask is not None, "only photographs with masks have copies with masks"
            files[copy.mask] = encode_picture(mask, ".png", quality=jpeg_quality)
        return files

    keys = [
        digest("transforms", _VERSION, photographs.state(view), jpeg_quality, photographs.invert_masks)
        for view in range(photographs.images.num_images)
    ]
    copies = plan_copies(photographs, keys=keys, with_masks=photographs.masks is not None)
    require_own_folder(target, photographs)
    return copies, make_copies(target, folder, copies, make, progress, what="copying photographs")
