"""Depth maps by image name, from a run's cache or from files, one in memory at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.api.arguments import UnknownNameError, number, numbers
from anchorsfm.api.picture import as_html
from anchorsfm.dense.views import DenseView
from anchorsfm.io.json_files import read_json
from anchorsfm.io.layout import Layout
from anchorsfm.report.pictures import depth_picture
from anchorsfm.scene.errors import InputError

if TYPE_CHECKING:
    from anchorsfm.dense.maps import DepthMaps

_SHOWN_SIDE = 480
"""Long side in pixels of a depth map in a notebook."""


@dataclass(frozen=True, kw_only=True)
class DepthMap:
    """Depth of every pixel of a pinhole picture of one image."""

    depth: Float[np.ndarray, "h w"]
    """Along the optical axis in units of the model; 0 where nothing is known."""
    confidence: Float[np.ndarray, "h w"]
    """Of a model: the number of views that agree, each weighted by its correlation; of an alignment: what the front end
    says (about 1: nothing known). 0 where the depth is not believed."""
    focal_px: float
    principal_point_px: Float[np.ndarray, "2"]
    """In pixels of this picture, whose size may differ from that of the photograph."""
    cam_from_world: Float[np.ndarray, "3 4"]
    rgb: UInt8[np.ndarray, "h w 3"] | None = None
    """The picture, where it is at hand."""

    def __repr__(self) -> str:
        height, width = self.depth.shape
        return f"<DepthMap: {width}x{height} pixels, depth known of {(self.depth > 0).mean():.0%}>"

    def _repr_html_(self) -> str:
        known = self.depth > 0
        near, far = np.percentile(self.depth[known], (2, 98)).tolist() if known.any() else (1.0, 1.0)
        picture = depth_picture(self.depth, known, (near, far), _SHOWN_SIDE)
        text = f"{repr(self).strip('<>')}, from {near:.3g} (red) to {far:.3g} (blue)"
        return as_html(picture, text, kind="jpeg", alt="depth in false colours")

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """Calibration matrix of the picture."""
        cx, cy = self.principal_point_px.tolist()
        return np.array([[self.focal_px, 0, cx], [0, self.focal_px, cy], [0, 0, 1.0]])

    def points(self) -> Float[np.ndarray, "h w 3"]:
        """World points of all pixels; NaN where nothing is known."""
        view = DenseView(
            depth=self.depth,
            confidence=self.confidence,
            cam_from_world=self.cam_from_world,
            focal_px=self.focal_px,
            principal_point_px=self.principal_point_px,
        )
        points = view.points()
        points[self.depth <= 0] = np.nan
        return points


class RunDepthMaps(Mapping[str, DepthMap]):
    """Those of a model that was just made: computed, mostly from the cache, when asked for."""

    def __init__(self, maps: "DepthMaps", names: tuple[str, ...]) -> None:
        self._maps = maps
        self._view = {names[int(image)]: view for view, image in enumerate(maps.depths.image_index)}

    def __getitem__(self, name: str) -> DepthMap:
        if name not in self._view:
            raise UnknownNameError(f"there is no depth map of an image {name!r}")
        clean = self._maps.clean(self._view[name])
        kept = clean.view.confidence > 0
        return DepthMap(
            depth=np.where(kept, clean.view.depth, 0).astype(np.float32),
            confidence=clean.view.confidence,
            focal_px=clean.view.focal_px,
            principal_point_px=clean.view.principal_point_px,
            cam_from_world=clean.view.cam_from_world,
            rgb=clean.rgb,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._view)

    def __len__(self) -> int:
        return len(self._view)


class StoredDepthMaps(Mapping[str, DepthMap]):
    """Those that a run wrote to dense/depth (setting `cloud.depth_maps`): read when asked for."""

    def __init__(self, layout: Layout, model_number: int) -> None:
        """Raises InputError if the folder's cameras.json is damaged; a folder that does not exist has no depth map."""
        self._layout = layout
        self._cameras = {
            name: camera for name, camera in _read_cameras(layout).items() if camera.get("model") == model_number
        }

    def __getitem__(self, name: str) -> DepthMap:
        if name not in self._cameras:
            raise UnknownNameError(f"there is no depth map of an image {name!r} in {self._layout.depth_maps}")
        camera = self._cameras[name]
        place = f"{self._layout.depth_cameras}, {name}"
        return DepthMap(
            depth=self._read(name, "depth"),
            confidence=self._read(name, "confidence"),
            focal_px=number(f"{place}: focal_px", camera["focal_px"], low=0.0, above=True),
            principal_point_px=numbers(f"{place}: principal_point_px", camera["principal_point_px"], "2"),
            cam_from_world=numbers(f"{place}: cam_from_world", camera["cam_from_world"], "3 4"),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)

    def _read(self, name: str, kind: Literal["depth", "confidence"]) -> Float[np.ndarray, "h w"]:
        path = self._layout.depth_map(name, kind)
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        if values.ndim != 2 or values.dtype.kind != "f":
            raise InputError(f"{path}: expected an array (height, width) of numbers")
        return values


def _read_cameras(layout: Layout) -> dict[str, dict[str, Any]]:
    path, folder = layout.depth_cameras, layout.depth_maps
    if not path.is_file():
        return {}
    content = read_json(path)
    needed = {"focal_px", "principal_point_px", "cam_from_world"}
    if not isinstance(content, dict) or not all(isinstance(c, dict) and needed <= c.keys() for c in content.values()):
        raise InputError(f"{path}: expected an object that maps image names to cameras")
    for name in content:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} names a file outside its folder: {name!r}")
    return content
