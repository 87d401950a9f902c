"""The controls beside the scene: which model, which points, how large, in which colours."""

from typing import Any

import numpy as np

from anchorsfm.results.model import StoredModel
from anchorsfm.viewer.browser import face, save_screenshot
from anchorsfm.viewer.clouds import CAMERA_COLOURS, POINT_COLOURS, DrawnPoints, PointFilter
from anchorsfm.viewer.colours import Legend, legend_html
from anchorsfm.viewer.ellipsoids import Ellipsoids
from anchorsfm.viewer.frame import SCENE_RADIUS
from anchorsfm.viewer.image_panel import ImagePanel
from anchorsfm.viewer.measure_panel import MeasurePanel
from anchorsfm.viewer.photographs import Photographs
from anchorsfm.viewer.sources import ViewedFolder
from anchorsfm.viewer.stage import Stage

ALL = "all, side by side"
_POINT_SIZE = 0.004 * SCENE_RADIUS
"""Diameter of a point at the slider's 1."""


class Panel:
    """Controls for everything but single images, which `image_panel` is for."""

    def __init__(self, server: Any, content: ViewedFolder, *, max_points: int, may_change: bool = False) -> None:
        self.stage = Stage(server, content.models, Photographs(content.photo_root))
        self._server, self._content, self._max_points = server, content, max_points
        self._models = list(content.models)
        self._points_drawn: tuple[str, PointFilter] | None = None
        self._cameras_drawn: tuple[str, float] | None = None
        self._clouds: list[DrawnPoints] = []
        self._camera_legends: list[Legend | None] = []
        self._ellipsoids: list[Ellipsoids | None] = []
        gui = server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False, control_width="medium")
        gui.main_panel.dock_right()
        self._add_choice(gui)
        self.images = ImagePanel(server, self.stage, Photographs(content.photo_root))
        self._add_buttons(gui)
        self._add_switches(gui)
        self._add_point_settings(gui)
        self._add_camera_settings(gui)
        self.measure = MeasurePanel(server, self.stage, may_change=may_change)
        self.measure.on_rescaled = self._show_again
        self._draw_points()
        self._draw_cameras()
        self.problems: tuple[str, ...] = ()
        """What could not be shown at first, a line each."""
        if self.dense.value:
            self.stage.set_visible("dense", True)
            self.problems = tuple(self._draw_dense())
        self._show_model()
        server.on_client_connect(self._welcome)
        self.stage.start_pictures()

    def stop(self) -> None:
        """End what runs in the background."""
        self.stage.stop()

    # -------------------------------------------------------------------------------------------------- controls

    def _add_choice(self, gui: Any) -> None:
        self.summary = gui.add_markdown("")
        titles = [_title(viewed) for viewed in self._models]
        options = [*titles, ALL] if len(titles) > 1 else titles
        self.model = gui.add_dropdown("Model", options, visible=len(titles) > 1)
        self.model.on_update(lambda _: self._show_model())

    def _add_buttons(self, gui: Any) -> None:
        overview = gui.add_button("Overview", hint="Stand where the whole scene can be seen")
        overview.on_click(lambda event: self._to_overview(event.client))
        picture = gui.add_button("Screenshot", hint="Save what is seen as a PNG file")
        picture.on_click(lambda event: save_screenshot(event.client))

    def _add_switches(self, gui: Any) -> None:
        with gui.add_folder("Show"):
            self.cameras = gui.add_checkbox("Cameras", True)
            self.pictures = gui.add_checkbox("Photographs", True, visible=self._content.photo_root is not None)
            self.points = gui.add_checkbox("Points", True)
            has_dense = any(viewed.cloud_file is not None for viewed in self._models)
            self.dense = gui.add_checkbox("Dense cloud", has_dense, visible=has_dense)
            known = any(one.position for viewed in self._models for one in viewed.precision.values())
            self.ellipsoids = gui.add_checkbox(
                "Uncertainty", False, visible=known, hint="Ellipsoids: how far the positions of the cameras may be off"
            )
            self.axes = gui.add_checkbox("Axes", False, hint="x red, y green, z blue (up); not those of the model")
        self.cameras.on_update(lambda _: self._switch("cameras", self.cameras.value))
        self.pictures.on_update(lambda _: self._switch("pictures", self.pictures.value))
        self.points.on_update(lambda _: self._switch("points", self.points.value))
        self.dense.on_update(lambda _: self._switch_dense())
        self.ellipsoids.on_update(lambda _: self._switch_ellipsoids())
        self.axes.on_update(lambda _: self._switch_axes())

    def _add_point_settings(self, gui: Any) -> None:
        lengths = np.concatenate([viewed.track_length for viewed in self._models])
        errors = np.concatenate([viewed.point_error_px for viewed in self._models])
        errors = errors[np.isfinite(errors)]
        longest = max(3, int(np.quantile(lengths, 0.99))) if len(lengths) else 3
        self._worst = float(np.ceil(10 * np.quantile(errors, 0.995)) / 10) if len(errors) else 1.0
        with gui.add_folder("Points"):
            self.point_colour = gui.add_dropdown("Colour", POINT_COLOURS)
            self.point_legend = gui.add_html("", visible=False)
            self.point_size = gui.add_slider("Size", 0.2, 5.0, 0.1, 1.0)
            self.min_length = gui.add_slider("Min images", 2, longest, 1, 2, hint="Images that must see a point")
            self.max_error = gui.add_slider(
                "Max error px", 0.0, self._worst, self._worst / 50, self._worst, hint="Rightmost: no limit"
            )
            self.min_confidence = gui.add_slider("Dense confidence", 0.0, 1.0, 0.01, 0.0, visible=False)
            self.count = gui.add_markdown("")
        for control in (self.point_colour, self.min_length, self.max_error):
            control.on_update(lambda _: self._draw_points())
        self.point_size.on_update(lambda _: self._resize_points())
        self.min_confidence.on_update(lambda _: self._draw_dense())

    def _add_camera_settings(self, gui: Any) -> None:
        with gui.add_folder("Cameras"):
            self.camera_colour = gui.add_dropdown("Colour", CAMERA_COLOURS)
            self.camera_legend = gui.add_html("", visible=False)
            self.camera_size = gui.add_slider("Size", 0.2, 4.0, 0.1, 1.0)
        self.camera_colour.on_update(lambda _: self._draw_cameras())
        self.camera_size.on_update(lambda _: self._draw_cameras())

    # --------------------------------------------------------------------------------------------- what they do

    def _show_again(self, number: int, viewed: StoredModel) -> None:
        """A model that was written in another scale: it is drawn where it was, and what is said of it is another."""
        with self.stage.lock:
            self._models[number] = viewed
            self.stage.models[number].show_again(viewed)
            self._cameras_drawn = None
            self._draw_cameras()
            self.images.show_again(number, viewed)
            self._say_what_is_drawn()

    def _number(self) -> int | None:
        """The model that is shown; None: all."""
        titles = [_title(viewed) for viewed in self._models]
        return titles.index(self.model.value) if self.model.value in titles else None

    def _show_model(self) -> None:
        with self.stage.lock:
            number = self._number()
            self.stage.arrange(number)
            self.images.offer([viewed for k, viewed in enumerate(self._models) if number in (None, k)])
            place = self.stage.overview(number)
            first = self._server.initial_camera
            first.position, first.look_at, first.up, first.fov = place.position, place.look_at, place.up, place.fov
            for client in self._server.get_clients().values():
                face(client, self.stage.overview(number, _aspect(client)))
            self._say_what_is_drawn()

    def _welcome(self, client: Any) -> None:
        face(client, self.stage.overview(self._number(), _aspect(client)))

    def _to_overview(self, client: Any) -> None:
        with self.stage.lock:
            self.images.leave(client, self.stage.overview(self._number(), _aspect(client)))

    def _switch(self, what: str, visible: bool) -> None:
        with self.stage.lock:
            self.stage.set_visible(what, visible)

    def _switch_dense(self) -> None:
        with self.stage.lock:
            self.stage.set_visible("dense", self.dense.value)
            if self.dense.value and not self.stage.has_dense():
                self._draw_dense()
            self._say_what_is_drawn()

    def _switch_ellipsoids(self) -> None:
        with self.stage.lock:
            self.stage.set_visible("ellipsoids", self.ellipsoids.value)
            if self.ellipsoids.value:
                self._ellipsoids = self.stage.draw_ellipsoids()
            self._say_what_is_drawn()

    def _switch_axes(self) -> None:
        self._server.scene.world_axes.visible = self.axes.value
        self._server.scene.world_axes.axes_length = SCENE_RADIUS / 3
        self._server.scene.world_axes.axes_radius = SCENE_RADIUS / 300

    def _filter(self) -> PointFilter:
        unlimited = self.max_error.value >= self._worst - 1e-9
        return PointFilter(
            min_track_length=int(self.min_length.value),
            max_error_px=np.inf if unlimited else float(self.max_error.value),
            max_points=self._max_points,
        )

    def _size(self) -> float:
        return _POINT_SIZE * float(self.point_size.value)

    def _draw_points(self) -> None:
        """Draw the points unless they are drawn like that already: a dragged slider asks more often than can be."""
        with self.stage.lock:
            wanted = (self.point_colour.value, self._filter())
            if wanted != self._points_drawn:
                self._points_drawn = wanted
                self._clouds = self.stage.draw_points(*wanted, self._size())
                self._say_what_is_drawn()

    def _say_what_is_drawn(self) -> None:
        number = self._number()
        shown = [cloud for k, cloud in enumerate(self._clouds) if number in (None, k)]
        drawn, total = sum(len(cloud.xyz) for cloud in shown), sum(cloud.total for cloud in shown)
        red = self.camera_colour.value == "plain"
        self.summary.content = "  \n".join(
            _summary(viewed, red) for k, viewed in enumerate(self._models) if number in (None, k)
        )
        said = [f"{drawn:,} of {total:,} points drawn"]
        dense = [shown.dense for k, shown in enumerate(self.stage.models) if shown.dense and number in (None, k)]
        if dense and self.dense.value:
            least = float(self.min_confidence.value)
            drawn = sum(len(cloud.filtered(least).xyz) for cloud in dense)
            said.append(f"{drawn:,} of {sum(cloud.total for cloud in dense):,} dense points")
        known = [one for k, one in enumerate(self._ellipsoids) if one is not None and number in (None, k)]
        if self.ellipsoids.value and known:
            times = " and ".join(f"{factor:g}" for factor in dict.fromkeys(one.factor for one in known))
            what = "spheres" if all(one.are_spheres for one in known) else "ellipsoids"
            said.append(f"{what}: {times} times one standard deviation of the positions")
        self.count.content = "  \n".join(said)
        _set_legend(self.point_legend, [cloud.legend for cloud in shown])
        _set_legend(self.camera_legend, [each for k, each in enumerate(self._camera_legends) if number in (None, k)])

    def _draw_dense(self) -> list[str]:
        """Draw the dense clouds; what went wrong, which those who look are told too."""
        with self.stage.lock:
            problems = self.stage.draw_dense(float(self.min_confidence.value), self._max_points, self._size())
            limits = self.stage.confidence_limits()
            if limits is not None and not self.min_confidence.visible:
                lowest, highest = np.floor(limits[0] * 10) / 10, np.ceil(limits[1] * 10) / 10
                self.min_confidence.min, self.min_confidence.max = float(lowest), float(highest)
                self.min_confidence.step = 0.1
                self.min_confidence.value = float(lowest)
                self.min_confidence.visible = True
            self._say_what_is_drawn()
        for problem in problems:
            for client in self._server.get_clients().values():
                client.add_notification("Dense cloud", problem, color="red")
        return problems

    def _resize_points(self) -> None:
        with self.stage.lock:
            self.stage.set_point_size(self._size())

    def _draw_cameras(self) -> None:
        with self.stage.lock:
            wanted = (self.camera_colour.value, float(self.camera_size.value))
            if wanted != self._cameras_drawn:
                self._cameras_drawn = wanted
                self._camera_legends = self.stage.draw_cameras(*wanted)
                self._say_what_is_drawn()
                self.images.mark()


def _aspect(client: Any) -> float | None:
    """Width by height of what a browser shows of the scene; None while nobody knows."""
    camera = getattr(client, "camera", None)
    return None if camera is None else float(camera.image_width / max(1, camera.image_height)) or None


def _title(viewed: StoredModel) -> str:
    return f"{viewed.title}: {len(viewed.names)} images"


def _summary(viewed: StoredModel, red: bool) -> str:
    parts = [f"**{len(viewed.names)} images**", f"{len(viewed.model.points):,} points"]
    errors = viewed.residual_px[np.isfinite(viewed.residual_px)]
    if len(errors):
        parts.append(f"mean error {errors.mean():.2f} px")
        parts.append(f"{len(viewed.residual_px) / max(1, len(viewed.model.points)):.1f} images per point")
    weak = sum(precision.weak for precision in viewed.precision.values())
    if weak:
        parts.append(f"**{weak} weakly held{' (red)' if red else ''}**")
    return ", ".join(parts)


def _set_legend(handle: Any, legends: list[Legend | None]) -> None:
    present = [legend for legend in legends if legend is not None]
    handle.content = "".join(legend_html(legend) for legend in present)
    handle.visible = bool(present)
