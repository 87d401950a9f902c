"""What is marked in the scene while an image is chosen."""

import numpy as np
from jaxtyping import Int

from anchorsfm.viewer.frame import SCENE_RADIUS
from anchorsfm.viewer.frusta import one_of, outline_colours, outlines, spread
from anchorsfm.viewer.selection import Neighbour
from anchorsfm.viewer.shown import ShownModel

MAX_RAYS = 80
"""Rays from two cameras to points that both see."""
_SELECTED = (255, 140, 0)
_NEIGHBOUR = (0, 190, 120)
_GREY = 128
_SEEN_SIZE = 0.008 * SCENE_RADIUS
_BETWEEN_CAMERAS = ("links", "rays")


def mark_cameras(shown: ShownModel, view: int, neighbours: tuple[Neighbour, ...], chosen: int | None) -> None:
    """Mark a camera, lines to its neighbours (the more shared points, the stronger), and the chosen neighbour."""
    poses = shown.frusta.shown_from_cam
    marked = [(view, _SELECTED), *([(chosen, _NEIGHBOUR)] if chosen is not None else [])]
    lines = np.concatenate([outlines(one_of(shown.frusta, k), shown.depth) for k, _ in marked])
    shown.add_lines("marked", lines, outline_colours(np.array([colour for _, colour in marked], np.uint8)), 4.0)
    ends = [neighbour.view for neighbour in neighbours]
    if ends:
        strength = np.array([n.shared for n in neighbours])[:, None] / neighbours[0].shared
        links = np.stack([np.broadcast_to(poses[view, :, 3], (len(ends), 3)), poses[ends, :, 3]], axis=1)
        fade = (strength * np.array(_SELECTED) + (1 - strength) * _GREY).astype(np.uint8)
        shown.add_lines("links", links, np.stack([fade, fade], axis=1), 2.0)


def mark_rays(shown: ShownModel, views: tuple[int, int], rows: Int[np.ndarray, "shared"]) -> None:
    """Rays from two cameras to some of the points that both see."""
    xyz = shown.points(rows[spread(len(rows), MAX_RAYS)])
    if len(xyz):
        places = [shown.frusta.shown_from_cam[view, :, 3] for view in views]
        rays = np.concatenate([np.stack([np.broadcast_to(place, xyz.shape), xyz], axis=1) for place in places])
        rgb = np.repeat(np.array([_SELECTED, _NEIGHBOUR], np.uint8), len(xyz), axis=0)
        shown.add_lines("rays", rays, np.stack([rgb, rgb], axis=1), 0.7)


def mark_points(shown: ShownModel, rows: Int[np.ndarray, "seen"]) -> None:
    """Draw some points of a model larger, in the colour of the selection."""
    shown.add_cloud("seen", shown.points(rows), _SELECTED, _SEEN_SIZE, True)


def unmark_cameras(shown: ShownModel) -> None:
    """Take away what `mark_cameras` and `mark_rays` drew."""
    shown.remove(("marked", *_BETWEEN_CAMERAS))


def unmark_between(shown: ShownModel) -> None:
    """Take away the lines that cross the view through a camera."""
    shown.remove(_BETWEEN_CAMERAS)


def unmark_points(shown: ShownModel) -> None:
    """Take away what `mark_points` drew."""
    shown.remove(("seen",))
