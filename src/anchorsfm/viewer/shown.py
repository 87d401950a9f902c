"""One model on the stage: where it stands, and viser's nodes for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.io.colours import linear_light
from anchorsfm.results.model import StoredModel
from anchorsfm.viewer.clouds import DrawnCloud, is_near
from anchorsfm.viewer.frame import ShownFrame, shown_frame
from anchorsfm.viewer.frusta import Frusta, make_frusta, quaternions


@dataclass
class ShownModel:
    """A model with the nodes that there are of it now."""

    scene: Any
    """viser's SceneApi"""
    viewed: StoredModel
    frame: ShownFrame
    frusta: Frusta
    camera_size: float = 1.0
    """Times the size that suits the model."""
    nodes: dict[str, Any] = field(default_factory=dict)
    """viser's handles by what they are: frame, points, dense, outlines, faces, overlay, and the marks."""
    thumbnails: dict[int, Any] = field(default_factory=dict)
    """Handles of pictures by view."""
    dense: DrawnCloud | None = None
    """Read when it is first shown."""

    def path(self, name: str) -> str:
        """Name of a node of this model."""
        return f"/model {self.viewed.number}/{name}"

    @property
    def depth(self) -> float:
        """Height of the pyramids of the cameras."""
        return self.frusta.depth * self.camera_size

    def points(self, rows: Int[np.ndarray, "chosen"]) -> Float[np.ndarray, "near 3"]:
        """Some points of the model in the frame that is shown, without those far away."""
        xyz = self.frame.points(self.viewed.model.points[rows])
        return xyz[is_near(xyz)]

    def add_cloud(self, name: str, xyz: Float[np.ndarray, "point 3"], rgb: Any, size: float, visible: bool) -> None:
        """Draw points in place of the node `name`; `rgb`: one colour each, or one for all."""
        if not len(xyz):  # viser's page complains about a cloud of no points
            self.remove([name])
            return
        self.nodes[name] = self.scene.add_point_cloud(
            self.path(name),
            xyz.astype(np.float32),
            rgb,
            point_size=size,
            point_shape="circle",
            precision="float32",
            point_shading="flat",
            visible=visible,
        )

    def add_lines(
        self,
        name: str,
        lines: Float[np.ndarray, "line 2 3"],
        rgb: UInt8[np.ndarray, "line 2 3"],
        thickness: float,
        *,
        visible: bool = True,
    ) -> None:
        """Draw lines in place of the node `name`; `thickness` in pixels."""
        self.nodes[name] = self.scene.add_line_segments(
            self.path(name),
            lines.astype(np.float32),
            linear_light(rgb),
            thickness=thickness,
            thickness_units="screen",
            visible=visible,
        )

    def add_picture(self, name: str, view: int, rgb: UInt8[np.ndarray, "h w channel"], visible: bool = True) -> Any:
        """Draw a picture at the base of a camera's pyramid; its handle."""
        handle = self.scene.add_image(
            self.path(name), rgb, 1.0, 1.0, jpeg_quality=70, cast_shadow=False, receive_shadow=False, visible=visible
        )
        self.place_picture(view, handle)
        return handle

    def place_picture(self, view: int, handle: Any) -> None:
        """Move a picture to where the base of its camera's pyramid is now."""
        pose = self.frusta.shown_from_cam[view]
        handle.position = pose[:, 3] + self.depth * pose[:, 2]
        handle.wxyz = quaternions(pose[None, :, :3])[0]
        width, height = (2 * self.depth * self.frusta.half_wh[view]).tolist()
        handle.render_width, handle.render_height = width, height

    def show_again(self, viewed: StoredModel) -> None:
        """The same model in another unit, read again: everything stays where it is."""
        placed = show_model(self.scene, viewed)
        self.viewed, self.frame, self.frusta = viewed, placed.frame, placed.frusta

    def remove(self, names: Iterable[str]) -> None:
        """Remove the nodes of these names that there are."""
        for name in names:
            if name in self.nodes:
                self.nodes.pop(name).remove()


def show_model(scene: Any, viewed: StoredModel) -> ShownModel:
    """Find the place of a model; nothing is drawn yet."""
    frame = shown_frame(viewed.model.cam_from_world, viewed.model.points, viewed.up)
    poses = frame.shown_from_cam(viewed.model.cam_from_world)
    frusta = make_frusta(poses, viewed.model.cameras, viewed.model.camera_index)
    return ShownModel(scene=scene, viewed=viewed, frame=frame, frusta=frusta)
