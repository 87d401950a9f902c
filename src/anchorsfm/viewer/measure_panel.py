"""The controls for measuring: two clicks in the scene, and what lies between them."""

from typing import Any

import numpy as np

from anchorsfm.viewer.measure import clicked_point, measure
from anchorsfm.viewer.stage import Stage

_HINT = "Click two points of the model in the scene."
_NOTHING = "No point of the model is near there: come closer, or click another place."
_MARK = (255, 0, 200)
_SIZE = 0.02
_BETWEEN = ("measured", "measured line")


class MeasurePanel:
    """A switch, and while it is on every click in the scene marks a point."""

    def __init__(self, server: Any, stage: Stage) -> None:
        self._stage = stage
        self._chosen: list[tuple[int, int]] = []
        with server.gui.add_folder("Measure"):
            self.on = server.gui.add_checkbox("Click two points", False, hint="Distance with its standard deviation")
            self.text = server.gui.add_markdown("")
        self.on.on_update(lambda _: self._switch())
        server.scene.on_click()(lambda event: self.click(event.ray_origin, event.ray_direction))

    def click(self, origin: tuple[float, float, float], direction: tuple[float, float, float]) -> None:
        """A click in the scene, as a ray through it."""
        if not self.on.value:
            return
        with self._stage.lock:
            found = self._found(np.array(origin, np.float64), np.array(direction, np.float64))
            if found is None:
                self.text.content = _NOTHING
                return
            if len(self._chosen) != 1 or self._chosen[0][0] != found[0] or self._chosen[0] == found:
                self._forget()
            self._chosen.append(found)
            self._show()

    def _found(self, origin: np.ndarray, direction: np.ndarray) -> tuple[int, int] | None:
        """Model and point that a ray means: of the models that are shown, the nearest."""
        if not (np.isfinite(origin).all() and np.isfinite(direction).all() and np.abs(direction).max() > 0):
            return None
        best: tuple[float, int, int] | None = None
        for number, shown in enumerate(self._stage.models):
            handle = shown.nodes["frame"]
            if not handle.visible:
                continue
            start = origin - np.array(handle.position)
            point = clicked_point(shown.viewed, shown.frame, start, direction)
            if point is not None:
                away = float(np.linalg.norm(shown.frame.points(shown.viewed.model.points[point]) - start))
                best = min(best or (away, number, point), (away, number, point))
        return None if best is None else best[1:]

    def _show(self) -> None:
        number = self._chosen[0][0]
        shown, rows = self._stage.models[number], np.array([point for _, point in self._chosen])
        shown.add_cloud("measured", shown.frame.points(shown.viewed.model.points[rows]), _MARK, _SIZE, True)
        if len(rows) == 1:
            self.text.content = "Now the second point."
            return
        line = shown.frame.points(shown.viewed.model.points[rows])[None]
        shown.add_lines("measured line", line, np.full((1, 2, 3), _MARK, np.uint8), 3.0)
        self.text.content = measure(shown.viewed, *rows.tolist()).markdown()

    def _forget(self) -> None:
        for shown in self._stage.models:
            shown.remove(_BETWEEN)
        self._chosen = []

    def _switch(self) -> None:
        with self._stage.lock:
            self._forget()
            self.text.content = _HINT if self.on.value else ""
