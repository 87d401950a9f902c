"""The scene in the browser: viser's nodes for the models, each below a frame of its own.

Models of one folder have nothing to do with each other's frames, so each is shown in its own (`frame`), one at a time
or side by side. All cameras of a model are two nodes, lines and clickable faces, whatever their number; pictures are
nodes of their own, made in the background for a limited number of cameras.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.viewer.clouds import (
    CameraColour,
    DrawnPoints,
    PointColour,
    PointFilter,
    camera_colours,
    read_dense,
    sparse_cloud,
)
from anchorsfm.viewer.colours import Legend
from anchorsfm.viewer.ellipsoids import Ellipsoids, ball, ellipsoids_of
from anchorsfm.viewer.frame import SCENE_RADIUS, Viewpoint, look_through, overview
from anchorsfm.viewer.frusta import (
    PYRAMID_FACES,
    PYRAMID_VERTICES,
    outline_colours,
    outlines,
    quaternions,
    spread,
)
from anchorsfm.viewer.marks import unmark_between
from anchorsfm.viewer.photographs import Photographs
from anchorsfm.viewer.shown import ShownModel, show_model

MAX_THUMBNAILS = 300
"""Pictures in the scene; the cameras beyond are plain."""
THUMBNAIL_SIDE = 160
_FACE_OPACITY = 0.12
_NOTHING = 1e-6
_PICTURES_AT_ONCE = 20
_SIDE_BY_SIDE = 2.5 * SCENE_RADIUS
_ELLIPSOID_RGB, _ELLIPSOID_OPACITY = (255, 190, 60), 0.35


class Stage:
    """Draws models through a viser server. Callers serialise their calls; `lock` is for them and the pictures."""

    def __init__(self, server: Any, models: tuple[StoredModel, ...], photographs: Photographs) -> None:
        self.lock = threading.RLock()
        self.models = [show_model(server.scene, viewed) for viewed in models]
        self.on_pick: Callable[[int, int], None] = lambda number, view: None
        """Called with model and view when a camera is clicked."""
        self._scene = server.scene
        self._photographs = photographs
        self._visible = {"cameras": True, "pictures": True, "points": True, "dense": False, "ellipsoids": False}
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
        """`cameras`, `pictures`, `points`, `dense` or `ellipsoids`."""
        self._visible[what] = visible
        for shown in self.models:
            for name in {"cameras": ("faces",), "points": ("points",), "dense": ("dense",)}.get(what, ()):
                if name in shown.nodes:
                    shown.nodes[name].visible = visible
            if "ellipsoids" in shown.nodes:
                shown.nodes["ellipsoids"].visible = self._ellipsoids_are_visible()
            if "outlines" in shown.nodes:
                shown.nodes["outlines"].visible = self._outlines_are_visible()
            for handle in shown.thumbnails.values():
                handle.visible = self._pictures_are_visible()
            self._update_faces(shown)

    def overview(self, number: int | None, aspect: float | None = None) -> Viewpoint:
        """Where to stand to see one model, or all, in a window of `aspect` (width by height)."""
        if number is not None or len(self.models) == 1:
            return overview(self.models[number or 0].frusta.shown_from_cam, aspect=aspect)
        radius = SCENE_RADIUS + _SIDE_BY_SIDE * (len(self.models) - 1) / 2
        return overview(np.zeros((0, 3, 4)), radius, aspect=aspect)

    def look_through(self, number: int, view: int, aspect: float) -> Viewpoint:
        """The viewpoint of a photograph; other cameras do not stand in the way until `restore_cameras`."""
        shown = self.models[number]
        self._set_looking(True)
        unmark_between(shown)
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
        shown = self.models[number]
        shown.remove(["overlay"])
        if self._looking and opacity > 0:
            alpha = np.full((*rgb.shape[:2], 1), round(255 * opacity), np.uint8)
            shown.nodes["overlay"] = shown.add_picture("overlay", view, np.concatenate([rgb, alpha], axis=2))

    def restore_cameras(self) -> None:
        """Show again what `look_through` took out of the way."""
        self._set_looking(False)

    def _set_looking(self, looking: bool) -> None:
        if not looking:
            for shown in self.models:
                shown.remove(["overlay"])
        if looking != self._looking:
            self._looking = looking
            self.set_visible("pictures", self._visible["pictures"])

    def _outlines_are_visible(self) -> bool:
        return self._visible["cameras"] and not self._looking

    def _ellipsoids_are_visible(self) -> bool:
        return self._visible["ellipsoids"] and not self._looking

    def _pictures_are_visible(self) -> bool:
        return self._visible["cameras"] and self._visible["pictures"] and not self._looking

    # --------------------------------------------------------------------------------------------------- points

    def draw_points(self, colour: PointColour, keep: PointFilter, size: float) -> list[DrawnPoints]:
        """Draw the sparse points of all models; what was drawn."""
        clouds = []
        for shown in self.models:
            cloud = sparse_cloud(shown.viewed, shown.frame, colour, keep)
            shown.add_cloud("points", cloud.xyz, cloud.rgb, size, self._visible["points"])
            clouds.append(cloud)
        return clouds

    def draw_dense(self, min_confidence: float, max_points: int, size: float) -> list[str]:
        """Draw the dense clouds, which are read the first time; what went wrong, in words."""
        problems = []
        for shown in self.models:
            if shown.viewed.cloud_file is None:
                continue
            try:
                if shown.dense is None:
                    shown.dense = read_dense(shown.viewed, shown.frame, max_points)
            except InputError as error:
                problems.append(str(error))
                continue
            kept = shown.dense.filtered(min_confidence)
            shown.add_cloud("dense", kept.xyz, kept.rgb, size, self._visible["dense"])
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

    # -------------------------------------------------------------------------------------------------- cameras

    def draw_cameras(self, colour: CameraColour, size: float) -> list[Legend | None]:
        """Draw all cameras, `size` times as large as suits the model; the legends of the models."""
        legends = []
        for shown in self.models:
            shown.camera_size = size
            coloured = camera_colours(shown.viewed, colour)
            self._draw_outlines(shown, coloured.rgb)
            self._draw_faces(shown, coloured.rgb)
            for view, handle in shown.thumbnails.items():
                shown.place_picture(view, handle)
            legends.append(coloured.legend)
        return legends

    def _draw_outlines(self, shown: ShownModel, rgb: np.ndarray) -> None:
        lines = outlines(shown.frusta, shown.depth)
        shown.add_lines("outlines", lines, outline_colours(rgb), 1.5, visible=self._outlines_are_visible())

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

    def draw_ellipsoids(self) -> list[Ellipsoids | None]:
        """Draw how far the positions of the cameras may be off; what was drawn for every model, or None where that is
        not known."""
        drawn: list[Ellipsoids | None] = []
        for shown in self.models:
            found = ellipsoids_of(shown.viewed, shown.frame, shown.frusta)
            drawn.append(found)
            if found is None or "ellipsoids" in shown.nodes:
                continue
            corner, face = ball()
            shown.nodes["ellipsoids"] = self._scene.add_batched_meshes_simple(
                shown.path("ellipsoids"),
                corner,
                face,
                quaternions(found.rotation),
                found.centre,
                batched_scales=found.radius.astype(np.float32),
                batched_colors=_ELLIPSOID_RGB,
                opacity=_ELLIPSOID_OPACITY,
                lod="off",
                side="double",
                cast_shadow=False,
                receive_shadow=False,
                visible=self._ellipsoids_are_visible(),
            )
        return drawn

    def _face_scales(self, shown: ShownModel) -> Float[np.ndarray, "view 3"]:
        """Half width, half height and depth of the pyramids; nearly nothing where faces would hide a picture or the
        view through a camera."""
        size = np.concatenate([shown.frusta.half_wh, np.ones((len(shown.frusta.half_wh), 1))], axis=1)
        scales = (size * shown.depth).astype(np.float32)
        if self._looking:
            scales[:] = _NOTHING
        elif self._pictures_are_visible():
            scales[list(shown.thumbnails)] = _NOTHING
        return scales

    def _update_faces(self, shown: ShownModel) -> None:
        if "faces" in shown.nodes:
            shown.nodes["faces"].batched_scales = self._face_scales(shown)

    # -------------------------------------------------------------------------------------------------- pictures

    def start_pictures(self) -> None:
        """Put pictures on the cameras, one after the other, in the background."""
        threading.Thread(target=self._make_pictures, daemon=True).start()

    def stop(self) -> None:
        """Make no more pictures."""
        with self.lock:
            self._stopped.set()

    def _make_pictures(self) -> None:
        left = MAX_THUMBNAILS
        for shown in self.models:
            views = spread(len(shown.viewed.names), left)
            left -= len(views)
            for start in range(0, len(views), _PICTURES_AT_ONCE):
                for view in views[start : start + _PICTURES_AT_ONCE]:
                    self._make_picture(shown, int(view))
                with self.lock:
                    if self._stopped.is_set():
                        return
                    self._update_faces(shown)

    def _make_picture(self, shown: ShownModel, view: int) -> None:
        model = shown.viewed.model
        try:
            photograph = self._photographs.load(
                shown.viewed.names[view], model.cameras[int(model.camera_index[view])], THUMBNAIL_SIDE
            )
        except InputError:
            return  # the camera stays plain; choosing it says why
        number = shown.viewed.number
        with self.lock:
            if self._stopped.is_set():
                return
            visible = self._pictures_are_visible()
            handle = shown.add_picture(f"pictures/{view}", view, photograph.rgb, visible)
            handle.on_click(lambda _: self.on_pick(number, view))
            shown.thumbnails[view] = handle
