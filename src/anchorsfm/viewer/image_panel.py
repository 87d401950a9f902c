"""One image and its neighbours: the photograph with its residuals, the facts, matches with another image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.viewer.browser import face
from anchorsfm.viewer.frame import Viewpoint
from anchorsfm.viewer.marks import mark_cameras, mark_points, mark_rays, unmark_cameras, unmark_points
from anchorsfm.viewer.photographs import Photograph, Photographs
from anchorsfm.viewer.pictures import draw_matches, draw_observations
from anchorsfm.viewer.selection import ImageFacts, facts_markdown, image_facts, pair_markdown, shared_points
from anchorsfm.viewer.stage import Stage

NOBODY = "(click a camera, or choose)"
NO_NEIGHBOUR = "(choose)"
_PICTURE_SIDE = 1400
"""Pictures in the panel are enlarged up to this."""
_BLANK = np.full((2, 2, 3), 40, np.uint8)
_PANEL_WIDTH = 420


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is looked at."""

    number: int
    view: int
    facts: ImageFacts
    neighbour: int | None = None
    """View of the neighbour whose matches are shown."""


class ImagePanel:
    """A dropdown among the controls, and a panel of its own while an image is chosen."""

    def __init__(self, server: Any, stage: Stage, photographs: Photographs) -> None:
        self._server, self._stage, self._photographs = server, stage, photographs
        self._models = [shown.viewed for shown in stage.models]
        self._rows: dict[str, tuple[int, int]] = {}
        self._labels: dict[str, int] = {}
        self.selection: Selection | None = None
        self.choice = server.gui.add_dropdown("Image", [NOBODY])
        self.choice.on_update(lambda _: self._choose())
        self._make_panel(server.gui)
        stage.on_pick = self.pick

    def _make_panel(self, gui: Any) -> None:
        self.panel = gui.add_panel(visible=False)
        with self.panel.add_tab("Image"):
            self.title = gui.add_markdown("")
            through = gui.add_button("Look through this camera")
            self.over = gui.add_slider(
                "Photograph %", 0, 100, 10, 0, visible=False, hint="The photograph over the scene behind it"
            )
            self.picture = gui.add_image(_BLANK, format="jpeg", jpeg_quality=85)
            self.magnify = gui.add_slider("Residuals x", 0, 100, 5, 20, hint="How much longer residuals are drawn")
            self.facts = gui.add_markdown("")
            self.show_seen = gui.add_checkbox("Mark its points in the scene", False)
            self.neighbour = gui.add_dropdown("Neighbour", [NO_NEIGHBOUR], hint="Images that share most points with it")
            self.matches = gui.add_image(_BLANK, format="jpeg", jpeg_quality=85, visible=False)
            self.pair = gui.add_markdown("")
            close = gui.add_button("Close")
        self.panel.dock_left()
        self.panel.set_width(_PANEL_WIDTH)
        through.on_click(lambda event: self.look_through(event.client))
        self.over.on_update(lambda _: self._draw_over())
        self.magnify.on_update(lambda _: self._draw_picture())
        self.show_seen.on_update(lambda _: self._mark_seen())
        self.neighbour.on_update(lambda _: self._choose_neighbour())
        close.on_click(lambda _: self.close())

    # --------------------------------------------------------------------------------------------------- choosing

    def offer(self, shown: Sequence[StoredModel]) -> None:
        """Offer the images of these models."""
        several = len(self._models) > 1
        self._rows = {
            (f"{viewed.title}: {name}" if several else name): (viewed.number, view)
            for viewed in shown
            for view, name in enumerate(viewed.names)
        }
        self.choice.options = [NOBODY, *sorted(self._rows)]

    def pick(self, number: int, view: int) -> None:
        """Choose an image by model and view."""
        with self._stage.lock:
            found = [label for label, row in self._rows.items() if row == (number, view)]
            if found:
                self.choice.value = found[0]

    def close(self) -> None:
        """Choose no image."""
        self.choice.value = NOBODY

    def _choose(self) -> None:
        with self._stage.lock:
            self._stop_looking()
            row = self._rows.get(self.choice.value)
            if row is None:
                self.selection = None
                self.panel.visible = False
            else:
                self._select(*row)
            self.mark()
            self._mark_seen()

    def _select(self, number: int, view: int) -> None:
        viewed = self._models[number]
        facts = image_facts(viewed, view)
        self.selection = Selection(number=number, view=view, facts=facts)
        self.title.content = f"### {facts.name}"
        self.facts.content = facts_markdown(facts)
        self._labels = {f"{viewed.names[n.view]} ({n.shared:,} points)": n.view for n in facts.neighbours}
        self.neighbour.options = [NO_NEIGHBOUR, *self._labels]
        self.neighbour.value = NO_NEIGHBOUR
        self._hide_pair()
        self._draw_picture()
        self.panel.visible = True

    def _choose_neighbour(self) -> None:
        with self._stage.lock:
            chosen = self._labels.get(self.neighbour.value) if self.selection is not None else None
            if self.selection is None or chosen == self.selection.neighbour:
                return
            self.selection = Selection(
                number=self.selection.number, view=self.selection.view, facts=self.selection.facts, neighbour=chosen
            )
            self._draw_pair()
            self.mark()

    def _stop_looking(self) -> None:
        self._stage.restore_cameras()
        self.over.visible = False

    def look_through(self, client: Any) -> None:
        """Move a browser to the place of the chosen image."""
        with self._stage.lock:
            if self.selection is None or client is None:
                return
            aspect = client.camera.image_width / max(1, client.camera.image_height)
            face(client, self._stage.look_through(self.selection.number, self.selection.view, aspect))
            self.over.visible = not isinstance(self._photograph(self.selection.view), str)
            self._draw_over()

    def leave(self, client: Any, place: Viewpoint) -> None:
        """Move a browser away from the place of an image."""
        with self._stage.lock:
            self._stop_looking()
            face(client, place)

    def show_again(self, number: int, viewed: StoredModel) -> None:
        """A model was read again: what is said of a chosen image of it is said anew."""
        self._models[number] = viewed
        chosen = self.selection
        if chosen is not None and chosen.number == number:
            facts = image_facts(viewed, chosen.view)
            self.selection = replace(chosen, facts=facts)
            self.facts.content = facts_markdown(facts)
            self.mark()

    # --------------------------------------------------------------------------------------------------- drawing

    def _draw_over(self) -> None:
        with self._stage.lock:
            chosen = self.selection
            photograph = self._photograph(chosen.view) if chosen is not None else ""
            if chosen is not None and not isinstance(photograph, str):
                self._stage.overlay(chosen.number, chosen.view, photograph.rgb, float(self.over.value) / 100)

    def mark(self) -> None:
        """Mark the selection in the scene."""
        for shown in self._stage.models:
            unmark_cameras(shown)
        chosen = self.selection
        if chosen is None:
            return
        shown = self._stage.models[chosen.number]
        mark_cameras(shown, chosen.view, chosen.facts.neighbours, chosen.neighbour)
        if chosen.neighbour is not None:
            shared = shared_points(shown.viewed, chosen.view, chosen.neighbour)
            mark_rays(shown, (chosen.view, chosen.neighbour), shared.point)

    def _mark_seen(self) -> None:
        with self._stage.lock:
            for shown in self._stage.models:
                unmark_points(shown)
            if self.selection is not None and self.show_seen.value:
                shown = self._stage.models[self.selection.number]
                rows = shown.viewed.observations(self.selection.view)
                mark_points(shown, shown.viewed.model.tracks.obs_point[rows])

    def _photograph(self, view: int) -> Photograph | str:
        """The pixels, or why there are none."""
        assert self.selection is not None
        viewed = self._models[self.selection.number]
        camera = viewed.model.cameras[int(viewed.model.camera_index[view])]
        try:
            return self._photographs.load(viewed.names[view], camera, _PICTURE_SIDE)
        except InputError as error:
            return str(error)

    def _draw_picture(self) -> None:
        with self._stage.lock:
            if self.selection is None:
                return
            viewed = self._models[self.selection.number]
            photograph = self._photograph(self.selection.view)
            self.picture.visible = self.magnify.visible = not isinstance(photograph, str)
            if isinstance(photograph, str):
                self.title.content = f"### {self.selection.facts.name}\n\n{photograph}"
                return
            rows = viewed.observations(self.selection.view)
            xy, residual = viewed.model.tracks.obs_xy[rows], viewed.residual[rows]
            self.picture.image = draw_observations(photograph, xy, residual, float(self.magnify.value))

    def _draw_pair(self) -> None:
        assert self.selection is not None
        other = self.selection.neighbour
        if other is None:
            self._hide_pair()
            return
        viewed = self._models[self.selection.number]
        shared = shared_points(viewed, self.selection.view, other)
        self.pair.content = pair_markdown(viewed, self.selection.view, other, shared)
        left, right = self._photograph(self.selection.view), self._photograph(other)
        self.matches.visible = not isinstance(left, str) and not isinstance(right, str)
        if not isinstance(left, str) and not isinstance(right, str):
            self.matches.image = draw_matches(left, right, shared.xy_a, shared.xy_b)

    def _hide_pair(self) -> None:
        self.matches.visible = False
        self.pair.content = ""
