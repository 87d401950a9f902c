"""Pair predictions -> scene graph and canonical views, in one pass over a stream (docs/method.md, Scene graph).

Pointmaps enter running sums and are dropped; matches are kept flat. A pair whose matches are all doubtful keeps, in
place of them, where it predicts the anchors of both images to be (the fallback, see docs/method.md, Losses).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.links import connected_groups
from anchorsfm.observe.canonical import CanonicalAccumulator, anchor_coordinate
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.relative import RelativeRotation, judge_rotations, relative_rotation
from anchorsfm.observe.sanitise import LeftOut, sanitise
from anchorsfm.scene.finite import require_finite
from anchorsfm.scene.graph import CanonicalView, FallbackTargets, SceneGraph
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import PairList, PairPrediction, PairStatus


@dataclass(frozen=True, kw_only=True)
class ObservedScene:
    """What the front end said, condensed. `image_index` maps local indices to those of the ImageSet."""

    image_index: Int[np.ndarray, "image"]
    graph: SceneGraph
    views: tuple[CanonicalView | None, ...]
    """One per image; None for an image that no usable pair reaches."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """What was not finite in the predictions."""
    rejected: Int[np.ndarray, "pair 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Pairs that are not in the graph because others contradict them; of the scene as a whole."""
    config: GraphConfig


def build_scene_graph(
    num_images: int,
    predictions: Iterable[PairPrediction],
    grid: ImageGrid,
    config: GraphConfig | None = None,
    pairs: PairList | None = None,
) -> ObservedScene:
    """Condense a stream of predictions; each prediction is dropped before the next one is asked for.

    pairs: what the stream will contain, if known: an image's sums are then finished and freed after its last pair.
    """
    config = config or GraphConfig()
    builder = SceneGraphBuilder(num_images, grid, config, pairs)
    for prediction in predictions:
        builder.add(prediction)
    return builder.finish()


def components(scene: ObservedScene) -> Iterator[ObservedScene]:
    """The connected parts of a scene, the largest first."""
    for component in range(int(scene.graph.component.max(initial=-1)) + 1):
        yield select_component(scene, component)


def select_component(scene: ObservedScene, component: int) -> ObservedScene:
    """The part of a scene in one connected component, with images renumbered 0 .. num_images-1."""
    graph = scene.graph
    keep = graph.component == component
    if not keep.any():
        raise ValueError(f"the scene graph has no component {component}")
    local = np.cumsum(keep) - 1
    keep_pair = keep[graph.pair].all(axis=1) if len(graph.pair) else np.zeros(0, bool)
    keep_match = keep_pair[graph.match_pair]
    fallback = graph.fallback
    keep_row = keep[fallback.image] & keep[fallback.frame]
    return ObservedScene(
        image_index=scene.image_index[keep],
        views=tuple(view for view, kept in zip(scene.views, keep, strict=True) if kept),
        config=scene.config,
        graph=SceneGraph(
            num_images=int(keep.sum()),
            pair=local[graph.pair[keep_pair]],
            score=graph.score[keep_pair],
            match_pair=(np.cumsum(keep_pair) - 1)[graph.match_pair[keep_match]],
            xy_i=graph.xy_i[keep_match],
            xy_j=graph.xy_j[keep_match],
            confidence=graph.confidence[keep_match],
            is_matching=graph.is_matching[keep_pair],
            confirmed=graph.confirmed[keep_pair],
            fallback=replace(
                fallback,
                image=local[fallback.image[keep_row]].astype(np.int32),
                frame=local[fallback.frame[keep_row]].astype(np.int32),
                anchor=fallback.anchor[keep_row],
                xyz=fallback.xyz[keep_row],
                confidence=fallback.confidence[keep_row],
            ),
            component=np.zeros(int(keep.sum()), np.int64),
        ),
    )


def score_matrix(graph: SceneGraph) -> Float[np.ndarray, "image image"]:
    """Symmetric matrix of pair scores, 0 where there is no pair."""
    return _symmetric(graph.num_images, graph.pair, graph.score)


def believed_scores(graph: SceneGraph) -> Float[np.ndarray, "image image"]:
    """`score_matrix` without unconfirmed pairs whose images confirmed ones connect."""
    i, j = graph.pair.T
    confirmed = graph.confirmed & (graph.score > 0)
    group = connected_groups(graph.num_images, graph.pair[confirmed])
    used = confirmed | (group[i] != group[j])
    return _symmetric(graph.num_images, graph.pair[used], graph.score[used])


def _symmetric(
    num_images: int, pair: Int[np.ndarray, "pair 2"], value: Float[np.ndarray, "pair"]
) -> Float[np.ndarray, "image image"]:
    matrix = np.zeros((num_images, num_images))
    i, j = pair.T
    matrix[i, j] = matrix[j, i] = value
    return matrix


def is_usable(prediction: PairPrediction) -> bool:
    """A pair contributes depth if it has some for both images, with at least one confidence above "know nothing"."""
    if prediction.status != PairStatus.OK or prediction.frame_i is None or prediction.frame_j is None:
        return False
    maps = (prediction.frame_i, prediction.frame_j)
    return any(c.max() > 1 for m in maps for c in (m.own_confidence, m.other_confidence))


class SceneGraphBuilder:
    """Condenses predictions one by one. `stored_sums` gives the sums an earlier, interrupted run had of an image."""

    def __init__(
        self,
        num_images: int,
        grid: ImageGrid,
        config: GraphConfig,
        pairs: PairList | None,
        stored_sums: Callable[[int], CanonicalAccumulator | None] = lambda _image: None,
    ) -> None:
        self.num_images = num_images
        self.grid = grid
        self.config = config
        self.sums: dict[int, CanonicalAccumulator] = {}
        self.views: list[CanonicalView | None] = [None] * num_images
        self.pairs: list[tuple[int, int]] = []
        self.matches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.rotations: list[RelativeRotation] = []
        self.fallback: list[Sequence[FallbackTargets]] = []
        self.pending = None if pairs is None else np.bincount(pairs.index.ravel(), minlength=num_images)
        self.left_out = LeftOut()
        self._stored_sums = stored_sums

    def add(self, prediction: PairPrediction) -> None:
        """Take in a prediction; what is not finite in it is left out."""
        prediction = sanitise(prediction, self.left_out)
        if is_usable(prediction):
            self.add_condensed(prediction, self.targets(prediction))
            self.add_to_sums(prediction)
        else:
            self.add_without_depth(prediction)
        self.count_off(prediction)

    def add_condensed(self, prediction: PairPrediction, targets: Sequence[FallbackTargets]) -> None:
        """The matches of a usable pair, its fallback targets and rotation, which its pointmaps show if nothing else."""
        assert 0 <= prediction.i < prediction.j < self.num_images
        matches = prediction.matches
        self.pairs.append((prediction.i, prediction.j))
        xy_i, xy_j, confidence = (np.asarray(v, np.float32) for v in (matches.xy_i, matches.xy_j, matches.confidence))
        self.matches.append((xy_i, xy_j, confidence))
        self.fallback.append(targets)
        self.rotations.append(relative_rotation(prediction))

    def add_without_depth(self, prediction: PairPrediction) -> None:
        """A pair whose depth is left to others of its images: its matches tie these together, if they are sure."""
        has_maps = prediction.frame_i is not None or prediction.frame_j is not None
        if prediction.status is PairStatus.OK and not has_maps and self._is_matching(prediction.matches.confidence):
            self.add_condensed(prediction, [])

    def add_to_sums(self, prediction: PairPrediction, images: Collection[int] | None = None) -> None:
        """Add the pointmaps of a usable pair to the sums of both of its images, or of those among `images`."""
        for image, maps in ((prediction.i, prediction.frame_i), (prediction.j, prediction.frame_j)):
            if images is None or image in images:
                assert maps is not None
                self.sums_of(image).add(maps.own, maps.own_confidence)

    def targets(self, prediction: PairPrediction) -> list[FallbackTargets]:
        """Where a badly matching pair predicts the anchors of both images; none for other pairs."""
        if self._is_matching(prediction.matches.confidence):
            return []
        assert prediction.frame_i is not None and prediction.frame_j is not None
        i, j = prediction.i, prediction.j
        return [
            self._sample_targets(i, j, prediction.frame_j.other, prediction.frame_j.other_confidence),
            self._sample_targets(j, i, prediction.frame_i.other, prediction.frame_i.other_confidence),
        ]

    def count_off(self, prediction: PairPrediction) -> None:
        """A pair is done: finish the views that no further pair shows."""
        if self.pending is not None:
            for image in (prediction.i, prediction.j):
                self.pending[image] -= 1
                if self.pending[image] == 0:
                    self._finish_view(image)

    def _is_matching(self, confidence: Float[np.ndarray, "match"]) -> bool:
        return len(confidence) > 0 and bool(confidence.max() > self.config.matching_conf_thr)

    def sums_of(self, image: int) -> CanonicalAccumulator:
        """The running sums of an image."""
        stored = self._stored_sums(image) if image not in self.sums else None
        if stored is not None:
            self.sums[image] = stored
        if image not in self.sums:
            self.sums[image] = empty_sums(self.grid, image, self.config)
        return self.sums[image]

    def _sample_targets(
        self, image: int, frame: int, points: Float[np.ndarray, "h w 3"], confidence: Float[np.ndarray, "h w"]
    ) -> FallbackTargets:
        subsample = self.config.subsample
        y, x = (anchor_coordinate(length, subsample) for length in confidence.shape)
        if self.config.corner_targets:
            y, x = (np.arange(0, length, subsample) for length in confidence.shape)
        weight = confidence[np.ix_(y, x)].ravel()
        known = np.flatnonzero(weight > 1)
        return FallbackTargets(
            image=np.full(len(known), image, np.int32),
            frame=np.full(len(known), frame, np.int32),
            anchor=known.astype(np.int32),
            xyz=points[np.ix_(y, x)].reshape(-1, 3)[known].astype(np.float32),
            confidence=weight[known].astype(np.float32),
        )

    def _finish_view(self, image: int) -> None:
        sums = self.sums.pop(image, None) or self._stored_sums(image)
        if sums is not None:
            assert self.views[image] is None, f"image {image} appears in more pairs than announced"
            self.views[image] = sums.finish(
                self.config.pixel_centre, robust_focal=self.config.robust_focal, focal_range=self.config.focal_range
            )

    def finish(self) -> ObservedScene:
        for image in sorted(self.sums):
            self._finish_view(image)
        pair = np.array(self.pairs, np.int64).reshape(-1, 2)
        has_view = np.array([view is not None for view in self.views], bool)
        belief = judge_rotations(self.num_images, pair, self.rotations, self.config.consistency)
        # a stream need not follow the order of pairs; the graph does
        order = np.lexsort((pair[:, 1], pair[:, 0]))
        order = order[has_view[pair[order]].all(axis=1) & ~belief.rejected[order]]
        kept = set(order.tolist())
        matches = [self.matches[k] for k in order]
        counts = np.array([len(m[2]) for m in matches], np.int64)
        graph = SceneGraph(
            num_images=self.num_images,
            pair=pair[order],
            score=counts.astype(np.float64),
            match_pair=np.repeat(np.arange(len(counts)), counts),
            xy_i=np.concatenate([xy for xy, _, _ in matches] or [np.zeros((0, 2), np.float32)]),
            xy_j=np.concatenate([xy for _, xy, _ in matches] or [np.zeros((0, 2), np.float32)]),
            confidence=np.concatenate([confidence for _, _, confidence in matches] or [np.zeros(0, np.float32)]),
            is_matching=np.array([int(self._is_matching(m[2])) for m in matches], np.int64),
            confirmed=belief.confirmed[order],
            fallback=_concatenate([part for k, parts in enumerate(self.fallback) if k in kept for part in parts]),
            component=_components(self.num_images, pair[order], counts),
        )
        every = np.arange(self.num_images)
        views = tuple(self.views)
        for view, number in zip(views, every.tolist(), strict=True):
            if view is not None:
                require_finite(
                    "canonical views",
                    f"image {number}",
                    view.focal_px,
                    view.anchor_depth,
                    view.relative_depth,
                    view.confidence,
                )
        return ObservedScene(
            image_index=every,
            graph=graph,
            views=views,
            config=self.config,
            left_out=self.left_out,
            rejected=pair[belief.rejected],
        )


def empty_sums(grid: ImageGrid, image: int, config: GraphConfig) -> CanonicalAccumulator:
    """Sums of an image before its first pair."""
    width, height = grid.size_wh[image].tolist()
    dtype = np.float64 if config.double_precision else np.float32
    return CanonicalAccumulator((width, height), config.subsample, config.canonical_mode, dtype)


def _concatenate(parts: list[FallbackTargets]) -> FallbackTargets:
    if not parts:
        return FallbackTargets.empty()
    return FallbackTargets(
        image=np.concatenate([p.image for p in parts]),
        frame=np.concatenate([p.frame for p in parts]),
        anchor=np.concatenate([p.anchor for p in parts]),
        xyz=np.concatenate([p.xyz for p in parts]),
        confidence=np.concatenate([p.confidence for p in parts]),
    )


def _components(
    num_images: int, pair: Int[np.ndarray, "pair 2"], num_matches: Int[np.ndarray, "pair"]
) -> Int[np.ndarray, "image"]:
    """Components over pairs with a match, numbered by size (ties: by their first image); -1 for a lone image."""
    edges = pair[num_matches > 0]
    if num_images == 0 or len(edges) == 0:
        return np.full(num_images, -1, np.int64)
    _, first, label, size = np.unique(
        connected_groups(num_images, edges), return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return np.where(size[label] > 1, rank[label], -1)
