"""A finished model by the names of its images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.spatial.transform import Rotation

from anchorsfm.api import arguments
from anchorsfm.api.arguments import ByName
from anchorsfm.api.depth import DepthMap
from anchorsfm.api.picture import as_html, draw_scene
from anchorsfm.colmap.cameras import normalised_from_pixels, principal_point_px
from anchorsfm.colmap.convert import to_pycolmap, to_pycolmap_camera
from anchorsfm.colmap.write import write_model
from anchorsfm.geometry.transforms import invert
from anchorsfm.io.ply import read_ply
from anchorsfm.scene.edit import with_images_numbered
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Camera, Reconstruction


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where one image was taken from. Camera axes are x right, y down, z forward (OpenCV, COLMAP)."""

    name: str
    cam_from_world: Float[np.ndarray, "3 4"]
    """[R | t]: x_cam = R x_world + t."""

    @property
    def world_from_cam(self) -> Float[np.ndarray, "3 4"]:
        """The inverse; its last column is `centre`."""
        return invert(self.cam_from_world)

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """R of `cam_from_world`."""
        return self.cam_from_world[:, :3]

    @property
    def translation(self) -> Float[np.ndarray, "3"]:
        """t of `cam_from_world`; not where the camera is, see `centre`."""
        return self.cam_from_world[:, 3]

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """Projection centre in the world frame."""
        return self.world_from_cam[:, 3]

    @property
    def quaternion(self) -> Float[np.ndarray, "4"]:
        """(w, x, y, z) of `rotation`, w >= 0, as COLMAP writes it."""
        return Rotation.from_matrix(self.rotation).as_quat(canonical=True, scalar_first=True)


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """One camera. Pixels are COLMAP's: (0.5, 0.5) is the centre of the top-left pixel of the upright photograph."""

    model: str
    """COLMAP's name, such as SIMPLE_RADIAL."""
    params: tuple[float, ...]
    """In COLMAP's order for that model."""
    width: int
    height: int

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def focal_px(self) -> tuple[float, float]:
        """Horizontal and vertical focal length."""
        entry = to_pycolmap_camera(self._camera)
        return float(entry.focal_length_x), float(entry.focal_length_y)

    @property
    def principal_point_px(self) -> Float[np.ndarray, "2"]:
        """(cx, cy)."""
        return principal_point_px(self._camera)

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """Calibration matrix; what the lens adds to it is in `params`."""
        (fx, fy), (cx, cy) = self.focal_px, self.principal_point_px.tolist()
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])

    def rays(self, xy: object) -> Float[np.ndarray, "point 2"]:
        """Undistorted coordinates (x / z, y / z) of pixels (point, 2); NaN where the lens model cannot be inverted."""
        return normalised_from_pixels(self._camera, arguments.numbers("xy", xy, "point 2"))

    @property
    def _camera(self) -> Camera:
        return Camera(model=self.model, width=self.width, height=self.height, params=self.params)


@dataclass(frozen=True, kw_only=True)
class Points:
    """The sparse points."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]
    error_px: Float[np.ndarray, "point"]
    """Mean reprojection error of each point in original pixels."""
    track_length: Int[np.ndarray, "point"]
    """Images that see each point."""

    def __len__(self) -> int:
        return len(self.xyz)

    def __repr__(self) -> str:
        return f"<Points: {len(self):,} sparse ones, with xyz, rgb, error_px, track_length>"


@dataclass(frozen=True, kw_only=True)
class TrackTable:
    """Which image sees which point where: flat arrays, one row per observation, sorted by point."""

    point: Int[np.ndarray, "obs"]
    """Row of `Model.points`."""
    image: Int[np.ndarray, "obs"]
    """Row of `names`."""
    xy: Float[np.ndarray, "obs 2"]
    """Original pixels."""
    names: tuple[str, ...]
    """Of the registered images."""

    def __len__(self) -> int:
        return len(self.point)

    def __repr__(self) -> str:
        return f"<TrackTable: {len(self):,} observations in {len(self.names)} images, with point, image, xy>"

    @property
    def image_name(self) -> np.ndarray:
        """Name of the image of each observation, an array (obs,) of strings."""
        return np.array(self.names, dtype=str)[self.image] if self.names else np.zeros(0, dtype=str)

    def seen_by(self, name: str) -> tuple[Int[np.ndarray, "seen"], Float[np.ndarray, "seen 2"]]:
        """Points that an image sees, and where."""
        rows = np.flatnonzero(self.image == arguments.image_rows("name", name, self.names))
        return self.point[rows], self.xy[rows]


@dataclass(frozen=True, kw_only=True)
class DenseCloud:
    """The dense cloud of a model, in its frame."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"] | None
    normal: Float[np.ndarray, "point 3"] | None
    confidence: Float[np.ndarray, "point"] | None

    def __len__(self) -> int:
        return len(self.xyz)

    def __repr__(self) -> str:
        there = [name for name in ("xyz", "rgb", "normal", "confidence") if getattr(self, name) is not None]
        return f"<DenseCloud: {len(self):,} points, with {', '.join(there)}>"


class Model:
    """A finished model: poses, intrinsics, points and tracks by image name. Never changes.

    Made by `anchorsfm.reconstruct`, `anchorsfm.load` and `anchorsfm.reconstruct_matches`.
    """

    def __init__(
        self,
        reconstruction: Reconstruction,
        names: Sequence[str],
        *,
        unregistered: Mapping[str, str] | None = None,
        others: Sequence["Model"] = (),
        report: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
        photographs: Path | None = None,
        dense_file: Path | None = None,
        depth_maps: Mapping[str, DepthMap] | None = None,
    ) -> None:
        """`names` are what `reconstruction.image_index` counts. The rest is what the attributes of the name say."""
        order = reconstruction.image_index.tolist()
        self.reconstruction = with_images_numbered(reconstruction)
        """The same as plain arrays; its images are rows of `names`."""
        self.names = tuple(names[image] for image in order)
        """Of the registered images."""
        self.unregistered: Mapping[str, str] = dict(unregistered or {})
        """Images that are in no model, and why."""
        self.others = tuple(others)
        """Further models, without a common image, the largest first."""
        self.report = report
        """The content of report.json, if there is one."""
        self.warnings = tuple(warnings)
        """What a user should know, one line each."""
        self.photographs = photographs
        """Folder that image names are relative to, if it is known."""
        self.depth_maps: Mapping[str, DepthMap] = ByName({}, "depth map of") if depth_maps is None else depth_maps
        """Cleaned depth maps by image name, made or read when asked for; empty if there are none."""
        self._dense_file = dense_file

    @cached_property
    def poses(self) -> Mapping[str, Pose]:
        """Pose of every registered image by name."""
        poses = self.reconstruction.cam_from_world
        return ByName(
            {name: Pose(name=name, cam_from_world=poses[k]) for k, name in enumerate(self.names)}, "registered image"
        )

    @cached_property
    def cameras(self) -> tuple[Intrinsics, ...]:
        """The different cameras."""
        return tuple(
            Intrinsics(model=c.model, params=tuple(c.params), width=c.width, height=c.height)
            for c in self.reconstruction.cameras
        )

    @cached_property
    def intrinsics(self) -> Mapping[str, Intrinsics]:
        """Camera of every registered image by name."""
        rows = self.reconstruction.camera_index.tolist()
        return ByName({name: self.cameras[row] for name, row in zip(self.names, rows, strict=True)}, "registered image")

    @cached_property
    def points(self) -> Points:
        """The sparse points."""
        model = self.reconstruction
        length = np.bincount(model.tracks.obs_point, minlength=len(model.points))
        return Points(xyz=model.points, rgb=model.rgb, error_px=model.error_px, track_length=length)

    @cached_property
    def tracks(self) -> TrackTable:
        """All observations."""
        tracks = self.reconstruction.tracks
        return TrackTable(point=tracks.obs_point, image=tracks.obs_image, xy=tracks.obs_xy, names=self.names)

    @cached_property
    def dense_cloud(self) -> DenseCloud | None:
        """The dense cloud, read when asked for; None if there is none.

        Raises InputError if its file is damaged.
        """
        if self._dense_file is None or not self._dense_file.is_file():
            return None
        cloud = read_ply(self._dense_file)
        normal = [cloud.others[f"n{axis}"] for axis in "xyz"] if {"nx", "ny", "nz"} <= cloud.others.keys() else None
        return DenseCloud(
            xyz=cloud.xyz,
            rgb=cloud.rgb,
            normal=None if normal is None else np.stack(normal, axis=1),
            confidence=cloud.others.get("confidence"),
        )

    def save(
        self, folder: str | Path, *, text: bool = False, formats: Iterable[str] = (), images: str | Path | None = None
    ) -> Path:
        """Write the model for other programs and return `folder`.

        Args:
            folder: gets COLMAP's cameras, images, points3D (and rigs, frames); other files in it stay.
            text: as text instead of binary.
            formats: further ones, each in `folder`/export/<format>: undistorted, transforms, ply, glb, database, tum,
                kitti ... (see `anchorsfm export`).
            images: folder of the photographs for formats that need them, if not where they were.

        Raises:
            InputError: an argument cannot be used, or the folder holds a model of the other kind, which would be read
                in place of this one.
            StorageError: something cannot be written.
        """
        target, text = arguments.path("folder", folder), arguments.flag("text", text)
        wanted = _formats(formats)
        other = target / ("images.bin" if text else "images.txt")
        if other.exists():
            kind, way_out = ("binary", "text=False") if text else ("text", "text=True")
            raise InputError(f"folder = {target} holds a {kind} model already: choose another folder, or {way_out}")
        if target.is_file():
            raise InputError(f"folder = {target} is a file: expected a folder")
        write_model(target, self.reconstruction, self.names, text=text)
        if wanted:
            from anchorsfm.export.config import ExportConfig
            from anchorsfm.export.run import export

            photographs = self.photographs if images is None else arguments.path("images", images)
            export(target, wanted, target / "export", ExportConfig(images=photographs))
        return target

    def to_pycolmap(self) -> Any:
        """The same model as a `pycolmap.Reconstruction`."""
        return to_pycolmap(self.reconstruction, self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __len__(self) -> int:
        """Number of registered images."""
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Model: {self._summary()}>"

    def _repr_html_(self) -> str:
        model = self.reconstruction
        return as_html(draw_scene(model.cam_from_world, model.points, model.rgb), self._summary())

    def _summary(self) -> str:
        everything = len(self.names) + len(self.unregistered) + sum(len(other.names) for other in self.others)
        text = f"{len(self.names)} of {everything} images, {len(self.points):,} points"
        length = self.points.track_length
        if len(self.points) and self.points.error_px.any():
            text += f", mean error {float(self.points.error_px @ length / max(length.sum(), 1)):.2f} px"
        return text + (f", {len(self.others)} further models" if self.others else "")


def _formats(formats: object) -> list[Any]:
    from typing import get_args

    from anchorsfm.export.config import ExportFormat

    if isinstance(formats, str) or not isinstance(formats, Iterable):
        raise InputError(f"formats = {arguments.short(formats)}: expected a list such as ['undistorted', 'ply']")
    return [arguments.choice("formats", name, get_args(ExportFormat)) for name in formats]
