"""Finished models are held against evidence that they did not use, and taken apart where it contradicts them.

A model whose views fall into several groups (`evidence`) keeps the largest. The views of the others are placed anew by
the matches that are left: where pairs only look alike, the matches that agreed with the wrong model are left out. What
cannot be placed becomes a model of its own, or is left out with the reason (docs/method.md, Finished models).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int

from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.evidence import PairEvidence, gather_evidence, group_views
from anchorsfm.scene.edit import select_points, select_views, with_cameras_of_views
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig

_WORTH = 0.98
"""Models made of one by its poses alone must agree with this share of the matches that it agrees with."""

_TIED = 1e6
"""Weight of what holds two views of one frame of a rig together: more than any evidence."""

PLACED_ANEW = "placed anew, because most of the verified matches contradicted the first place"
_APART = "a model of their own, because their verified matches contradicted the rest of the model they were in"
_APART_ALIKE = (
    "a model of their own: they show something that only looks like what the model they were in shows, without the "
    "surroundings it has there"
)
_NO_PLACE = "most of its verified matches contradict every place that was found for it"
_NO_PLACE_ALIKE = "it shows something that only looks like what the model shows, without the surroundings it has there"

Adjust = Callable[[Reconstruction, AdjustResult, MapperInput], AdjustResult]
"""Adjusts part of the model of a result, or more than it, from its poses."""
Grow = Callable[[AdjustResult, Int[np.ndarray, "candidate"], MapperInput], AdjustResult]
"""Adds those of some images to a model that its points show the poses of."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that was changed in finished models because of evidence that they did not use."""

    images: tuple[int, ...]
    what: str
    """A clause about them."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a model."""

    results: tuple[AdjustResult, ...]
    """The models that it is now, the one of the largest group first."""
    changes: tuple[Change, ...] = ()
    """Views that became models of their own."""
    placed_anew: frozenset[int] = frozenset()
    """Index of images that have another pose."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Image index -> why it is in none of them."""
    matches: KeypointMatches
    """Those of the whole ImageSet that are still believed."""
    evidence: PairEvidence | None = None
    """On the model, if it stays."""


def examine(model: Reconstruction, given: MapperInput, config: AdjustConfig) -> PairEvidence:
    """The evidence on a finished model."""
    long_side_px = given.images.size_wh.max(axis=1)
    return gather_evidence(
        model,
        given.matches if given.free is None else given.free,
        given.tracks,
        max_error_px=np.minimum(config.final_error_px * given.working_scale, config.second_error * long_side_px),
        min_angle_deg=config.min_angle_deg,
    )


def is_consistent(model: Reconstruction, evidence: PairEvidence) -> bool:
    """Whether the evidence on a model leaves its views in one group."""
    return not _groups(model, evidence).any()


def make_consistent(
    result: AdjustResult,
    given: MapperInput,
    config: AdjustConfig,
    adjust: Adjust,
    grow: Grow,
    placed_before: Collection[int] = (),
) -> Verdict:
    """The model as it is, or what it is when views are placed as the evidence says.

    Given poses are not doubted: a model that has some stays as it is. Images that were placed anew before
    (`placed_before`) and are contradicted again have no place: they are not placed a second time.
    """
    evidence = examine(result.model, given, config)
    kept = Verdict(results=(result,), matches=given.matches, evidence=evidence)
    if result.held.pose.any() or result.held.positions is not None or len(result.model.image_index) < 3:
        return kept
    group = _groups(result.model, evidence)
    if not group.any():
        return kept
    alike = _alike(evidence, group)
    remaining = _without(given, result.model, evidence.view[alike])
    try:
        verdict = _taken_apart(result, group, alike, remaining, adjust, grow, placed_before)
    except NoReconstructionError:  # its parts hold even less
        return kept
    if not alike.any():
        of_dropped = np.isin(result.model.image_index[evidence.view], list(verdict.reasons)).any(axis=1)
        after = sum(int(examine(part.model, given, config).agreeing.sum()) for part in verdict.results)
        if after < _WORTH * evidence.agreeing[~of_dropped].sum():
            return kept
    return verdict


def _groups(model: Reconstruction, evidence: PairEvidence) -> Int[np.ndarray, "view"]:
    """Views of one group belong together; those that no evidence places stay with the largest group, 0."""
    pairs, weight = evidence.view, evidence.weight
    if model.rigs is not None:  # views of one frame are placed together, or not at all
        together = _of_one_frame(model.rigs.frames(model.image_index))
        pairs, weight = np.concatenate([pairs, together]), np.concatenate([weight, np.full(len(together), _TIED)])
    group = group_views(len(model.image_index), pairs, weight)
    against = np.zeros(len(group), bool)
    against[evidence.view[evidence.weight < 0].ravel()] = True
    has_evidence = np.zeros(int(group.max(initial=0)) + 1, bool)
    has_evidence[group[against]] = True
    return np.where(has_evidence[group], group, 0)


def _of_one_frame(frame: Int[np.ndarray, "view"]) -> Int[np.ndarray, "pair 2"]:
    """Pairs of views (first one, other one) of each frame."""
    views = np.flatnonzero(frame >= 0)
    _, first, number = np.unique(frame[views], return_index=True, return_inverse=True)
    pairs = np.stack([views[first[number.reshape(-1)]], views], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _alike(evidence: PairEvidence, group: Int[np.ndarray, "view"]) -> Bool[np.ndarray, "pair"]:
    """Pairs that agree with the model between groups whose pictures say that they only look alike."""
    i, j = np.sort(group[evidence.view], axis=1).T
    agrees = (i != j) & (evidence.matches > 0) & ~evidence.contradicted
    key = i * (int(group.max()) + 1) + j
    looks = np.bincount(key, weights=np.where(agrees, evidence.looks, 0.0))
    return agrees & ((looks[key] < 0) | (evidence.looks < 0))


def _without(given: MapperInput, model: Reconstruction, pairs: Int[np.ndarray, "pair 2"]) -> MapperInput:
    """Without the matches of pairs of views."""
    if not len(pairs):
        return given
    images = given.images.num_images
    wrong = np.sort(model.image_index[pairs], axis=1) @ [images, 1]
    low, high = (
        np.minimum(given.matches.image_i, given.matches.image_j),
        np.maximum(given.matches.image_i, given.matches.image_j),
    )
    matches = given.matches.select(~np.isin(low * images + high, wrong))
    return replace(given, matches=matches, tracks=build_tracks(matches, images))


def _taken_apart(
    result: AdjustResult,
    group: Int[np.ndarray, "view"],
    alike: Bool[np.ndarray, "pair"],
    given: MapperInput,
    adjust: Adjust,
    grow: Grow,
    placed_before: Collection[int],
) -> Verdict:
    model = result.model
    core = adjust(_part(model, group == 0), result, given)
    others = model.image_index[group > 0]
    grown = grow(core, np.setdiff1d(others, list(placed_before)), given)
    placed = np.isin(others, grown.model.image_index)
    only_alike = bool(alike.any())
    changes, results, reasons = [], [grown], {}
    for number in range(1, int(group.max()) + 1):
        mine = (group == number) & ~np.isin(model.image_index, grown.model.image_index)
        images = tuple(model.image_index[mine].tolist())
        if len(images) >= 2:
            results.append(adjust(_part(model, mine), result, given))
            changes.append(Change(images=images, what=_APART_ALIKE if only_alike else _APART))
        elif images:
            reasons[images[0]] = _NO_PLACE_ALIKE if only_alike else _NO_PLACE
    return Verdict(
        results=tuple(results),
        changes=tuple(changes),
        placed_anew=frozenset(others[placed].tolist()),
        reasons=reasons,
        matches=given.matches,
    )


def _part(model: Reconstruction, keep: Bool[np.ndarray, "view"]) -> Reconstruction:
    """Some views with the points that they see."""
    images = model.image_index[keep]
    return with_cameras_of_views(select_views(select_points(model, np.isin(model.tracks.obs_image, images)), keep))
