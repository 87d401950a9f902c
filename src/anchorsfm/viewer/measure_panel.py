"""The controls for measuring: two clicks in the scene, what lies between them, and the scale that it sets."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import AnchorSfMError
from anchorsfm.viewer.measure import clicked_point, measure, quoted
from anchorsfm.viewer.rescale import can_be_rescaled, set_scale
from anchorsfm.viewer.stage import Stage

_HINT = "Click two points of the model in the scene."
_NOTHING = "No point of the model is near there: come closer, or click another place."
_WAIT = "Setting the scale ..."
_LONGEST_M = 1e6
_MARK = (255, 0, 200)
_SIZE = 0.02
_BETWEEN = ("measured", "measured line")


class MeasurePanel:
    """A switch, and while it is on every click in the scene marks a point.

    Where the model on disk may be changed there are controls that set its scale; else the command is shown that does.
    """

    def __init__(self, server: Any, stage: Stage, *, may_change: bool) -> None:
        self._stage = stage
        self._chosen: list[tuple[int, int]] = []
        self._busy = threading.Lock()
        self.on_rescaled: Callable[[int, StoredModel], None] = lambda number, viewed: None
        """Called with a model that was written in another scale, and read again."""
        self.metres: Any = None
        """None where nobody may change the model."""
        self.set: Any = None
        with server.gui.add_folder("Measure"):
            self.on = server.gui.add_checkbox("Click two points", False, hint="Distance with its standard deviation")
            self.text = server.gui.add_markdown("")
            if may_change and any(can_be_rescaled(shown.viewed) for shown in stage.models):
                self.metres = server.gui.add_number(
                    "Metres", 0.0, min=0.0, max=_LONGEST_M, step=0.0001, visible=False, hint="How far they are apart"
                )
                self.set = server.gui.add_button(
                    "Set scale", visible=False, hint="Changes the model on disk, with all that belongs to it"
                )
                self.set.on_click(lambda _: self.rescale())
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
        self.text.content = self._said(shown.viewed, *rows.tolist())

    def _said(self, viewed: StoredModel, first: int, second: int, *, is_set: bool = False) -> str:
        """What lies between two points; without a deviation if it has just been given."""
        found = measure(viewed, first, second)
        found = replace(found, deviation=np.inf) if is_set else found
        offered = self.metres is not None and found.length > 0 and can_be_rescaled(viewed)
        if offered:
            self.metres.visible = self.set.visible = True
        return found.markdown(with_command=not offered)

    def rescale(self) -> None:
        """Give the model on disk the scale in which the two points are as far apart as the field says."""
        if self.metres is None or not self._busy.acquire(blocking=False):
            return
        try:
            with self._stage.lock:
                if len(self._chosen) != 2:
                    return
                (number, first), (_, second) = self._chosen
                viewed = self._stage.models[number].viewed
                self.text.content = _WAIT
                try:
                    done = set_scale(viewed, first, second, float(self.metres.value))
                except AnchorSfMError as error:
                    self.text.content = f"{self._said(viewed, first, second)}\n\nThe scale was not set: {error}"
                    return
                self.on_rescaled(number, done.viewed)
                said = [self._said(done.viewed, first, second, is_set=True), *done.said, _undone(done.viewed)]
                self.text.content = "\n\n".join(said)
        finally:
            self._busy.release()

    def _forget(self) -> None:
        for shown in self._stage.models:
            shown.remove(_BETWEEN)
        self._chosen = []
        if self.metres is not None:
            self.metres.visible = self.set.visible = False

    def _switch(self) -> None:
        with self._stage.lock:
            self._forget()
            self.text.content = _HINT if self.on.value else ""


def _undone(viewed: StoredModel) -> str:
    """How it is taken back."""
    assert viewed.run is not None
    number = f" --model {viewed.recorded_number}" if viewed.recorded_number else ""
    command = f"anchorsfm transform {quoted(str(viewed.run.root))}{number} --reset"
    return f"The scale is set. `{command}` takes it back, with all other changes."
