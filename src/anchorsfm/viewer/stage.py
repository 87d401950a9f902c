"""The scene in the browser: viser's nodes for the models, each below a frame of its own.

Models of one folder have nothing to do with each other's frames, so each is shown in its own (`frame`), one at a time
or side by side. All cameras of a model are two nodes, lines and clickable faces, whatever their number; pictures are
nodes of their own, made in the background for a limited number of cameras.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.scene.errors import InputError
from anchorsfm.viewer.clouds import (
    CameraColour,
    Cloud,
    DenseCloud,
    PointColour,
    PointFilter,
    camera_colours,
    read_dense,
    sparse_cloud,
)
from anchorsfm.viewer.colours import Legend, linear_light
from anchorsfm.viewer.frame import SCENE_RADIUS, ShownFrame, Viewpoint, look_through, overview, shown_frame
from anchorsfm.viewer.frusta import (
    PYRAMID_FACES,
    PYRAMID_VERTICES,
    Frusta,
    make_frusta,
    outline_colours,
    outlines,
    quaternions,
    spread,
)
from anchorsfm.viewer.photographs import Photographs
from anchorsfm.viewer.selection import Neighbour
from anchorsfm.viewer.sources import ViewedModel

MAX_THUMBNAILS = 300
"""Pictures in the scene; the cameras beyond are plain."""
THUMBNAIL_SIDE = 160
MAX_RAYS = 80
"""Rays from two cameras to points that both see."""
_SELECTED = (255, 140, 0)
_NEIGHBOUR = (0, 190, 120)
_FACE_OPACITY = 0.12
_NOTHING = 1e-6
_PICTURES_AT_ONCE = 20
_SIDE_BY_SIDE = 2.5 * SCENE_RADIUS


@dataclass
class ShownModel:
    """A model on the stage: its place, and handles of the nodes that are there now."""

    viewed: ViewedModel
    frame: ShownFrame
    frusta: Frusta
    nodes: dict[str, Any] = field(default_factory=dict)
    """viser's handles by what they are: frame, points, dense, outlines, faces."""
    thumbnails: dict[int, Any] = field(default_factory=dict)
    """Handles of pictures by view."""
    dense: DenseCloud | None = None
    """Read when it is first shown."""

    def path(self, name: str) -> str:
        """Name of a node of this model."""
        return f"/model {self.viewed.number}/{name}"


class Stage:
    """Draws models through a viser server. Callers serialise their calls; `lock` is for them and the pictures."""

    def __init__(self, server: Any, models: tuple[ViewedModel, ...], photographs: Photographs) -> None:
        self.lock = threading.RLock()
        self.models = [_show(viewed) for viewed in models]
        self.on_pick: Callable[[int, int], None] = lambda number, view: None
        """Called with model and view when a camera is clicked."""
        self._scene = server.scene
        self._photographs = photographs
        self._camera_size = 1.0
        self._visible = {"cameras": True, "pictures": True, "points": True, "dense": False}
        self._looking = False
        self._stopped = threading.Event()
        self._scene.set_up_direction("+z")
        for shown in self.models:
            shown.nodes["frame"] = self._scene.add_frame(shown.path("")[:-1], show_axes=False)

    # ---------------------------------------------------------------------------------------------- what is shown

    def arrange(self, number: int | None) -> None:
        """Show one model, or with None all of them side by side."""
        for k, shown in enumerate(self.models):
            handle = shown.nodes["frame"]
            handle.visible = number is None or k == number
            offset = _SIDE_BY_SIDE * (k - (len(self.models) - 1) / 2) if number is None else 0.0
            handle.position = (offset, 0.0, 0.0)

    def set_visible(self, what: str, visible: bool) -> None:
        """`cameras`, `pictures`, `points` or `dense`."""
        self._visible[what] = visible
        for shown in self.models:
            for name in {"cameras": ("faces",), "points": ("points",), "dense": ("dense",)}.get(what, ()):
                if name in shown.nodes:
                    shown.nodes[name].visible = visible
            if "outlines" in shown.nodes:
                shown.nodes["outlines"].visible = self._outlines_are_visible()
            for handle in shown.thumbnails.values():
                handle.visible = self._pictures_are_visible()
            self._update_faces(shown)

    def overview(self, number: int | None) -> Viewpoint:
        """Where to stand to see one model, or all."""
        if number is not None or len(self.models) == 1:
            return overview(self.models[number or 0].frusta.shown_from_cam)
        return overview(np.zeros((0, 3, 4)), SCENE_RADIUS + _SIDE_BY_SIDE * (len(self.models) - 1) / 2)

    def look_through(self, number: int, view: int, aspect: float) -> Viewpoint:
        """The viewpoint of a photograph; other cameras do not stand in the way until `restore_cameras`."""
        shown = self.models[number]
        self._set_looking(True)
        self._remove(("links", "rays"))
        seen = shown.viewed.model.tracks.obs_point[shown.viewed.observations(view)]
        centre = shown.frusta.shown_from_cam[view, :, 3]
        away = np.linalg.norm(shown.frame.points(shown.viewed.model.points[seen]) - centre, axis=1)
        away = away[np.isfinite(away)]
        distance = float(np.median(away)) if len(away) else SCENE_RADIUS
        place = look_through(shown.frusta.shown_from_cam[view], shown.frusta.half_wh[view], aspect, distance)
        offset = np.array(shown.nodes["frame"].position)
        return Viewpoint(position=place.position + offset, look_at=place.look_at + offset, up=place.up, fov=place.fov)

    def overlay(self, number: int, view: int, rgb: UInt8[np.ndarray, "h w 3"], opacity: float) -> None:
        """While looking through a camera: its photograph over the scene, from 0 (not there) to 1 (nothing else)."""
        self._remove(("overlay",))
        if self._looking and opacity > 0:
            shown = self.models[number]
            alpha = np.full((*rgb.shape[:2], 1), round(255 * opacity), np.uint8)
            handle = self._scene.add_image(
                shown.path("overlay"),
                np.concatenate([rgb, alpha], axis=2),
                1.0,
                1.0,
                format="png",
                cast_shadow=False,
                receive_shadow=False,
            )
            self._place_picture(shown, view, handle)
            shown.nodes["overlay"] = handle

    def restore_cameras(self) -> None:
        """Show again what `look_through` took out of the way."""
        self._set_looking(False)

    def _set_looking(self, looking: bool) -> None:
        if not looking:
            self._remove(("overlay",))
        if looking != self._looking:
            self._looking = looking
            self.set_visible("pictures", self._visible["pictures"])

    def _outlines_are_visible(self) -> bool:
        return self._visible["cameras"] and not self._looking

    def _pictures_are_visible(self) -> bool:
        return self._visible["cameras"] and self._visible["pictures"] and not self._looking

    # --------------------------------------------------------------------------------------------------- points

    def draw_points(self, colour: PointColour, keep: PointFilter, size: float) -> list[Cloud]:
        """Draw the sparse points of all models; what was drawn."""
        clouds = []
        for shown in self.models:
            cloud = sparse_cloud(shown.viewed, shown.frame, colour, keep)
            self._replace_cloud(shown, "points", cloud.xyz, cloud.rgb, size)
            clouds.append(cloud)
        return clouds

    def draw_dense(self, min_confidence: float, max_points: int, size: float) -> list[str]:
        """Draw the dense clouds, which are read the first time; what went wrong, in words."""
        problems = []
        for shown in self.models:
            if shown.viewed.dense is None:
                continue
            try:
                if shown.dense is None:
                    shown.dense = read_dense(shown.viewed, shown.frame, max_points)
            except InputError as error:
                problems.append(str(error))
                continue
            kept = shown.dense.filtered(min_confidence)
            self._replace_cloud(shown, "dense", kept.xyz, kept.rgb, size)
        return problems

    def has_dense(self) -> bool:
        """Whether dense clouds have been read."""
        return any(shown.dense is not None for shown in self.models)

    def confidence_limits(self) -> tuple[float, float] | None:
        """Least and most confidence of the dense points that have been read; None where there is none."""
        known = [shown.dense.confidence for shown in self.models if shown.dense is not None]
        values = [confidence for confidence in known if confidence is not None and len(confidence)]
        if not values:
            return None
        low, high = min(float(v.min()) for v in values), max(float(np.quantile(v, 0.98)) for v in values)
        return (low, high) if high > low else None

    def set_point_size(self, size: float) -> None:
        """Diameter of sparse and dense points."""
        for shown in self.models:
            for name in ("points", "dense"):
                if name in shown.nodes:
                    shown.nodes[name].point_size = size

    def _replace_cloud(self, shown: ShownModel, name: str, xyz: np.ndarray, rgb: np.ndarray, size: float) -> None:
        if not len(xyz):  # viser's page complains about a cloud of no points
            if name in shown.nodes:
                shown.nodes.pop(name).remove()
            return
        shown.nodes[name] = self._scene.add_point_cloud(
            shown.path(name), xyz.astype(np.float32), rgb, point_size=size, point_shape="circle", precision="float32",
            point_shading="flat", visible=self._visible[name],
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------- cameras

    def draw_cameras(self, colour: CameraColour, size: float) -> list[Legend | None]:
        """Draw all cameras, `size` times as large as suits the model; the legends of the models."""
        self._camera_size = size
        legends = []
        for shown in self.models:
            coloured = camera_colours(shown.viewed, colour)
            self._draw_outlines(shown, coloured.rgb)
            self._draw_faces(shown, coloured.rgb)
            for view, handle in shown.thumbnails.items():
                self._place_picture(shown, view, handle)
            legends.append(coloured.legend)
        return legends

    def _draw_outlines(self, shown: ShownModel, rgb: np.ndarray) -> None:
        lines = outlines(shown.frusta, self._depth(shown))
        self._add_lines(shown, "outlines", lines, outline_colours(rgb), 1.5, visible=self._outlines_are_visible())

    def _draw_faces(self, shown: ShownModel, rgb: np.ndarray) -> None:
        poses = shown.frusta.shown_from_cam
        handle = self._scene.add_batched_meshes_simple(
            shown.path("faces"),
            PYRAMID_VERTICES,
            PYRAMID_FACES,
            quaternions(poses[:, :, :3]),
            poses[:, :, 3],
            batched_scales=self._face_scales(shown),
            batched_colors=rgb,
            opacity=_FACE_OPACITY,
            lod="off",
            side="double",
            flat_shading=True,
            cast_shadow=False,
            receive_shadow=False,
            visible=self._visible["cameras"],
        )
        number = shown.viewed.number
        handle.on_click(lambda event: self.on_pick(number, int(event.instance_index or 0)))
        shown.nodes["faces"] = handle

    def _face_scales(self, shown: ShownModel) -> Float[np.ndarray, "view 3"]:
        """Half width, half height and depth of the pyramids; nearly nothing where faces would hide a picture or the
        view through a camera."""
        size = np.concatenate([shown.frusta.half_wh, np.ones((len(shown.frusta.half_wh), 1))], axis=1)
        scales = (size * self._depth(shown)).astype(np.float32)
        if self._looking:
            scales[:] = _NOTHING
        elif self._pictures_are_visible():
            scales[list(shown.thumbnails)] = _NOTHING
        return scales

    def _update_faces(self, shown: ShownModel) -> None:
        if "faces" in shown.nodes:
            shown.nodes["faces"].batched_scales = self._face_scales(shown)

    def _depth(self, shown: ShownModel) -> float:
        return shown.frusta.depth * self._camera_size

    # -------------------------------------------------------------------------------------------------- pictures

    def start_pictures(self) -> None:
        """Put pictures on the cameras, one after the other, in the background."""
        threading.Thread(target=self._make_pictures, daemon=True).start()

    def stop(self) -> None:
        """Make no more pictures."""
        self._stopped.set()

    def _make_pictures(self) -> None:
        left = MAX_THUMBNAILS
        for shown in self.models:
            views = spread(len(shown.viewed.names), left)
            left -= len(views)
            for start in range(0, len(views), _PICTURES_AT_ONCE):
                for view in views[start : start + _PICTURES_AT_ONCE]:
                    if self._stopped.is_set():
                        return
                    self._make_picture(shown, int(view))
                with self.lock:
                    self._update_faces(shown)

    def _make_picture(self, shown: ShownModel, view: int) -> None:
        model = shown.viewed.model
        try:
            photograph = self._photographs.load(
                shown.viewed.names[view], model.cameras[int(model.camera_index[view])], THUMBNAIL_SIDE
            )
        except InputError:
            return  # the camera stays plain; choosing it says why
        with self.lock:
            handle = self._scene.add_image(
                shown.path(f"pictures/{view}"), photograph.rgb, 1.0, 1.0, jpeg_quality=70, cast_shadow=False,
                receive_shadow=False, visible=self._pictures_are_visible(),
            )  # fmt: skip
            self._place_picture(shown, view, handle)
            number = shown.viewed.number
            handle.on_click(lambda _: self.on_pick(number, view))
            shown.thumbnails[view] = handle

    def _place_picture(self, shown: ShownModel, view: int, handle: Any) -> None:
        depth, pose = self._depth(shown), shown.frusta.shown_from_cam[view]
        handle.position = pose[:, 3] + depth * pose[:, 2]
        handle.wxyz = quaternions(pose[None, :, :3])[0]
        handle.render_width, handle.render_height = (float(2 * depth * half) for half in shown.frusta.half_wh[view])

    # ------------------------------------------------------------------------------------------------- selection

    def mark(self, number: int | None, view: int, neighbours: tuple[Neighbour, ...], chosen: int | None) -> None:
        """Mark a camera, lines to its neighbours (the more shared points, the stronger), and the chosen neighbour."""
        self._remove(("marked", "links", "rays"))
        if number is None:
            return
        shown = self.models[number]
        depth, poses = self._depth(shown), shown.frusta.shown_from_cam
        marked = [(view, _SELECTED), *([(chosen, _NEIGHBOUR)] if chosen is not None else [])]
        lines = np.concatenate([outlines(_one(shown.frusta, k), depth) for k, _ in marked])
        colours = outline_colours(np.array([colour for _, colour in marked], np.uint8))
        self._add_lines(shown, "marked", lines, colours, 4.0)
        ends = [neighbour.view for neighbour in neighbours]
        if ends:
            strength = np.array([n.shared for n in neighbours]) / neighbours[0].shared
            links = np.stack([np.broadcast_to(poses[view, :, 3], (len(ends), 3)), poses[ends, :, 3]], axis=1)
            fade = strength[:, None] * np.array(_SELECTED) + (1 - strength[:, None]) * 128
            self._add_lines(shown, "links", links, np.stack([fade, fade], axis=1).astype(np.uint8), 2.0)

    def mark_points(self, number: int | None, rows: np.ndarray, size: float) -> None:
        """Draw some points of a model larger, in the colour of the selection."""
        for shown in self.models:
            if "seen" in shown.nodes:
                shown.nodes.pop("seen").remove()
        if number is not None and len(rows):
            shown = self.models[number]
            xyz = shown.frame.points(shown.viewed.model.points[rows]).astype(np.float32)
            shown.nodes["seen"] = self._scene.add_point_cloud(
                shown.path("seen"), xyz, _SELECTED, point_size=size, point_shape="circle", precision="float32"
            )

    def mark_rays(self, number: int, views: tuple[int, int], rows: np.ndarray) -> None:
        """Rays from two cameras to some of the points that both see."""
        shown = self.models[number]
        xyz = shown.frame.points(shown.viewed.model.points[rows[spread(len(rows), MAX_RAYS)]])
        both = [np.stack([np.broadcast_to(shown.frusta.shown_from_cam[k, :, 3], xyz.shape), xyz], 1) for k in views]
        colours = np.repeat(np.array([_SELECTED, _NEIGHBOUR], np.uint8), len(xyz), axis=0)
        if len(xyz):
            self._add_lines(shown, "rays", np.concatenate(both), np.stack([colours, colours], 1), 0.7)

    def _remove(self, names: tuple[str, ...]) -> None:
        for shown in self.models:
            for name in names:
                if name in shown.nodes:
                    shown.nodes.pop(name).remove()

    def _add_lines(
        self,
        shown: ShownModel,
        name: str,
        lines: Float[np.ndarray, "line 2 3"],
        rgb: UInt8[np.ndarray, "line 2 3"],
        thickness: float,
        *,
        visible: bool = True,
    ) -> None:
        shown.nodes[name] = self._scene.add_line_segments(
            shown.path(name),
            lines.astype(np.float32),
            linear_light(rgb),
            thickness=thickness,
            thickness_units="screen",
            visible=visible,
        )


def _show(viewed: ViewedModel) -> ShownModel:
    frame = shown_frame(viewed.model.cam_from_world, viewed.model.points)
    poses = frame.shown_from_cam(viewed.model.cam_from_world)
    frusta = make_frusta(poses, viewed.model.cameras, viewed.model.camera_index)
    return ShownModel(viewed=viewed, frame=frame, frusta=frusta)


def _one(frusta: Frusta, view: int) -> Frusta:
    """The frusta of one camera."""
    return Frusta(
        shown_from_cam=frusta.shown_from_cam[view : view + 1],
        half_wh=frusta.half_wh[view : view + 1],
        depth=frusta.depth,
    )
