"""Lengths near 1 inside the solvers, whatever the units of the front end and of known poses.

Robust losses on distances, depth limits and steps of Adam have lengths of their own. They mean the same for every scene
because the alignment works in units in which a typical depth (of the front end) lies between 2 and 4, as in metres
indoors, and the extent of what is known (of the world) is 1. The unit of depths is a power of two: dividing by it is
exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.transforms import invert
from anchorsfm.scene.alignment import AlignmentResult, KnownImage
from anchorsfm.scene.graph import Anchors, SceneGraph


@dataclass(frozen=True, kw_only=True)
class Units:
    """World points X are origin + world * x in terms of the solver's x."""

    front_end: float
    """Length of the solver's unit of predicted depths, in the front end's units."""
    world: float
    """Length of its unit of known poses and depths, in the units of these."""
    origin: Float[np.ndarray, "3"]

    @staticmethod
    def none() -> "Units":
        """Everything stays as it is."""
        return Units(front_end=1.0, world=1.0, origin=np.zeros(3))

    def of_anchors(self, anchors: Anchors) -> Anchors:
        """Canonical depths in the solver's units."""
        return replace(anchors, depth=anchors.depth / anchors.depth.dtype.type(self.front_end))

    def of_graph(self, graph: SceneGraph) -> SceneGraph:
        """Regression targets in the solver's units."""
        targets = graph.fallback
        return replace(graph, fallback=replace(targets, xyz=targets.xyz / targets.xyz.dtype.type(self.front_end)))

    def of_known(self, known: Sequence[KnownImage | None] | None) -> list[KnownImage | None] | None:
        """Known poses and depths in the solver's units."""
        return None if known is None else [None if k is None else self._of_known_image(k) for k in known]

    def _of_known_image(self, known: KnownImage) -> KnownImage:
        pose, depth = known.cam_from_world, known.anchor_depth
        if pose is not None:
            world_from_cam = invert(pose)
            world_from_cam[:, 3] = (world_from_cam[:, 3] - self.origin) / self.world
            pose = invert(world_from_cam)
        return replace(known, cam_from_world=pose, anchor_depth=None if depth is None else depth / self.world)

    def restored(self, result: AlignmentResult, *, scale_is_known: bool) -> AlignmentResult:
        """The solver's result in units of the world, or of the front end where nothing known fixes the scale."""
        unit = self.world if scale_is_known else self.front_end
        rotation, shift = result.cam_from_world[:, :, :3], result.cam_from_world[:, :, 3:]
        return replace(
            result,
            cam_from_world=np.concatenate([rotation, shift * unit - rotation @ self.origin[:, None]], axis=2),
            anchor_depth=result.anchor_depth * unit,
            points=result.points * unit + self.origin,
        )


def find_units(anchors: Anchors, known: Sequence[KnownImage | None] | None) -> Units:
    """Units of a component: its typical depth, and the typical known depth or else the extent of the known poses."""
    depth = anchors.depth[anchors.depth > 0]
    front_end = float(2.0 ** (np.floor(np.log2(np.median(depth))) - 1)) if len(depth) else 1.0
    given = [k for k in known or () if k is not None]
    centres = np.array([invert(k.cam_from_world)[:, 3] for k in given if k.cam_from_world is not None])
    depths = [k.anchor_depth.ravel() for k in given if k.anchor_depth is not None]
    extent = float(np.ptp(centres, axis=0).max()) if len(centres) else 0.0
    if depths:
        extent = float(np.median(np.concatenate(depths)))
    return Units(
        front_end=front_end,
        world=extent if extent > 0 else front_end,
        origin=centres.mean(axis=0) if len(centres) else np.zeros(3),
    )
