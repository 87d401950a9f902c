"""Canonical views, condensed observations and pair scores: what all predictions say together."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from anchorsfm.api import arguments
from anchorsfm.api.arguments import ByName
from anchorsfm.api.display import progress_of
from anchorsfm.api.predictions import Predictions, as_predictions, with_pointmap_confidence
from anchorsfm.api.settings import with_settings
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.canonical import CanonicalAccumulator
from anchorsfm.observe.checkpoint import observe
from anchorsfm.observe.config import DepthMode, GraphConfig
from anchorsfm.observe.graph import ObservedScene, build_scene_graph, components, score_matrix
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.graph import Anchors, CanonicalView
from anchorsfm.scene.pairs import Matches
from anchorsfm.scene.progress import Progress, counted

_DESC_CONF = ("desc_conf", "conf")


def canonical_view(pointmaps: Any, confidences: Any, *, subsample: int = 8, mode: str = "avg-angle") -> CanonicalView:
    """What several predictions say about one image: its focal length, anchor depths, relative depths, confidence.

    Args:
        pointmaps: (prediction, h, w, 3), each in the frame of the image's own camera.
        confidences: (prediction, h, w), at least 1; 1 knows nothing.
        subsample: side in pixels of the blocks that share a depth unknown.
        mode: how depth within a block is averaged: avg-angle or avg-reldepth.

    Raises:
        InputError: an argument cannot be used.
    """
    points = arguments.numbers("pointmaps", pointmaps, "prediction h w 3")
    weights = arguments.numbers("confidences", confidences, "prediction h w")
    if points.shape[:3] != weights.shape:
        shapes = f"{arguments.shape_text(points.shape)} and {arguments.shape_text(weights.shape)}"
        raise InputError(f"pointmaps and confidences have the shapes {shapes}: expected equal prediction, h, w")
    if not len(points):
        raise InputError("pointmaps is empty: expected at least one prediction")
    if weights.min() < 1:
        raise InputError(f"confidences: the least is {weights.min():g}; expected at least 1, which knows nothing")
    size = arguments.whole("subsample", subsample, low=1)
    chosen = DepthMode(arguments.choice("mode", mode, [member.value for member in DepthMode]))
    height, width = weights.shape[1:]
    sums = CanonicalAccumulator((width, height), size, chosen)
    for pointmap, confidence in zip(points.astype(np.float32), weights.astype(np.float32), strict=True):
        sums.add(pointmap, confidence)
    return sums.finish()


class CondensedScene:
    """Canonical views, matches and scores of pairs. Pixels are those of `predictions.grid`."""

    def __init__(self, predictions: Predictions, scene: ObservedScene) -> None:
        self.predictions = predictions
        self.scene = scene
        """The same as plain arrays; its images are rows of `names`."""
        self.names = tuple(predictions.names[image] for image in scene.image_index)

    @property
    def canonical(self) -> Mapping[str, CanonicalView]:
        """The canonical view of every image that a usable pair shows, by name."""
        views = zip(self.names, self.scene.views, strict=True)
        return ByName({name: view for name, view in views if view is not None}, "canonical view of")

    @property
    def scores(self) -> Float[np.ndarray, "image image"]:
        """Number of correspondences of every pair: what the kinematic tree is made from."""
        return score_matrix(self.scene.graph)

    def matches(self, first: Any, second: Any) -> Matches:
        """Correspondences of a pair; empty if it was not looked at or says nothing."""
        i, j = (arguments.image_rows(end, value, self.names) for end, value in (("first", first), ("second", second)))
        graph = self.scene.graph
        here = (graph.pair == [min(i, j), max(i, j)]).all(axis=1)[graph.match_pair]
        ends = (graph.xy_i[here], graph.xy_j[here])
        xy_i, xy_j = ends if i < j else ends[::-1]
        return Matches(xy_i=xy_i, xy_j=xy_j, confidence=graph.confidence[here])

    @cached_property
    def components(self) -> "tuple[CondensedScene, ...]":
        """The connected parts, the largest first: each is aligned by itself. Images without a match are in none."""
        component = self.scene.graph.component
        if len(component) and (component == 0).all():
            return (self,)
        return tuple(CondensedScene(self.predictions, part) for part in components(self.scene))

    @cached_property
    def anchors(self) -> Anchors:
        """Every matched pixel with its anchor and depth ratio (one component)."""
        self.require_connected()
        return build_anchors(self.scene)

    def require_connected(self) -> None:
        """Raises InputError unless the scene is one component."""
        if not (self.scene.graph.component == 0).all() or not len(self.names):
            count = len(self.components)
            raise InputError(
                f"scene: its {len(self.names)} images are not connected, they have {count} components; "
                "expected one of scene.components"
            )

    def __repr__(self) -> str:
        return f"<CondensedScene: {len(self.names)} images, {len(self.scene.graph.pair)} pairs that match>"


def condense(
    predictions: Any,
    *,
    desc_conf: str = "desc_conf",
    progress: bool | Progress | None = None,
    **settings: object,
) -> CondensedScene:
    """Canonical views, matches and scores from a stream of predictions; none of them is kept.

    Args:
        predictions: of `predict_pairs`, or a list for `as_predictions`.
        desc_conf: confidence of matches: "desc_conf" the front end's own, "conf" that of the pointmaps at their pixels.
        progress: as for `reconstruct`.
        settings: of `GraphConfig`: subsample, matching_conf_thr, canonical_mode ...

    Raises:
        InputError: an argument or prediction cannot be used.
    """
    found = predictions if isinstance(predictions, Predictions) else as_predictions(predictions)
    config = with_settings(GraphConfig(), settings)
    of_pointmaps = arguments.choice("desc_conf", desc_conf, _DESC_CONF) == "conf"
    with progress_of(progress) as shown, shown.stage("pair predictions", len(found)) as advance:
        count, watch = found.images.num_images, partial(counted, advance=advance)
        if of_pointmaps:  # not kept between runs: sums in the cache are those of the front end's own confidences
            stream = (with_pointmap_confidence(p) for p in watch(iter(found)))
            scene = build_scene_graph(count, stream, found.grid, config, found.pair_list)
        else:
            scene = observe(count, found.predictor, found.pair_list, config, found.store, watch)
    return CondensedScene(found, scene)
