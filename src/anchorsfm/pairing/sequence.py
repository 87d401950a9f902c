"""Neighbours in an order of the photographs, or by where they were taken, where that means something.

Photographs taken one after the other mostly have names in order, and mostly show the same. Where neighbours are no more
alike than others, names say nothing (photographs from the internet, renamed or shuffled ones).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

MAX_DISTANCE = 3
"""Places apart."""
NUM_NEAR = 6
"""Nearest positions: in a flight, two along the strip and some across."""
MIN_RANK = 0.7
"""Mean rank of the next image by similarity, 0 (least alike) to 1, from which on an order means something."""
MIN_DEVIATIONS = 4.0
"""What chance may add: the mean rank of random neighbours is 1/2, with a standard deviation of 1 / sqrt(12 n)."""


def means_something(similarity: Float[np.ndarray, "image image"], order: Int[np.ndarray, "_"]) -> bool:
    """Whether neighbours in an order are more alike than others."""
    if len(order) < 3:
        return False
    return _are_alike(similarity, order[:-1], order[1:])


def _are_alike(
    similarity: Float[np.ndarray, "image image"], own: Int[np.ndarray, "pair"], following: Int[np.ndarray, "pair"]
) -> bool:
    """Whether images are more alike to certain others than to the rest."""
    value = similarity[own, following][:, None]
    others = np.ones((len(own), len(similarity)), bool)
    others[np.arange(len(own)), own] = others[np.arange(len(own)), following] = False
    row = similarity[own]
    rank = (((row < value) + 0.5 * (row == value)) * others).sum(1) / others.sum(1)
    return bool(rank.mean() > max(MIN_RANK, 0.5 + MIN_DEVIATIONS / np.sqrt(12 * len(rank))))


def nearest(
    similarity: Float[np.ndarray, "image image"], position: Float[np.ndarray, "image 3"]
) -> Int[np.ndarray, "pair 2"]:
    """Pairs of each image with the `NUM_NEAR` taken nearest to it, nearest first; none where places mean nothing.

    Args:
        similarity: larger is more alike.
        position: in any frame; NaN where unknown.
    """
    known = np.flatnonzero(np.isfinite(position).all(axis=1))
    if len(known) < 3:
        return np.zeros((0, 2), np.int64)
    count = min(NUM_NEAR, len(known) - 1)
    found = np.asarray(cKDTree(position[known]).query(position[known], k=count + 1)[1])
    # of several images in one place the first found may be another one
    others = np.array([[k for k in found[own].tolist() if k != own][:count] for own in range(len(known))])
    if not _are_alike(similarity, known, known[others[:, 0]]):
        return np.zeros((0, 2), np.int64)
    return np.concatenate([np.stack([known, known[others[:, place]]], axis=1) for place in range(count)])


def neighbours(similarity: Float[np.ndarray, "image image"], order: Int[np.ndarray, "_"]) -> Int[np.ndarray, "pair 2"]:
    """Pairs up to `MAX_DISTANCE` places apart, nearest first; none where the order means nothing.

    Args:
        similarity: larger is more alike.
        order: images one after the other, each once; some may be missing.
    """
    if not means_something(similarity, order):
        return np.zeros((0, 2), np.int64)
    apart = range(1, min(MAX_DISTANCE, len(order) - 1) + 1)
    return np.concatenate([np.stack([order[:-distance], order[distance:]], axis=1) for distance in apart])
