"""Edges of scene graphs: arrays of (i, j) that may hold an unordered pair more than once."""

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.pairing.config import Auto, LogWindow, Prefilter, Retrieval, Window

_AUTO_OFFSETS = (1, 2, 3, 4, 8, 16, 32)


def complete_edges(num_images: int) -> Int[np.ndarray, "pair 2"]:
    """Every pair once."""
    return np.stack(np.triu_indices(num_images, 1), axis=1)


def window_edges(num_images: int, window: Window | LogWindow) -> Int[np.ndarray, "pair 2"]:
    """Pairs a given number of places apart.

    A cyclic window as large as the set leads back to the image itself; such pairs (i, i) are part of the result.
    """
    if isinstance(window, Window):
        offsets = tuple(range(1, min(window.size, num_images) + 1))  # further ones lead nowhere, or around again
    else:
        offsets = tuple(2**exponent for exponent in range(window.num_offsets))
    return _offset_edges(num_images, offsets, window.cyclic)


def _offset_edges(num_images: int, offsets: tuple[int, ...], cyclic: bool) -> Int[np.ndarray, "pair 2"]:
    first = np.repeat(np.arange(num_images), len(offsets))
    second = first + np.tile(np.array(offsets, np.int64), num_images)
    if cyclic:
        return np.stack([first, second % max(num_images, 1)], axis=1)
    return np.stack([first, second], axis=1)[second < num_images]


def one_reference_edges(num_images: int, reference: int) -> Int[np.ndarray, "pair 2"]:
    """One image with all others."""
    others = np.delete(np.arange(num_images), reference)
    return np.stack([np.full_like(others, reference), others], axis=1)


def auto_edges(num_images: int, config: Auto, seed: int) -> Int[np.ndarray, "pair 2"]:
    """See `Auto`: at most (7 + num_random_cycles) * num_images pairs for large sets."""
    if num_images <= config.max_complete:
        return complete_edges(num_images)
    rng = np.random.default_rng(seed)
    edges = [_offset_edges(num_images, _AUTO_OFFSETS, cyclic=False)]
    for _ in range(config.num_random_cycles):
        walk = rng.permutation(num_images)
        edges.append(np.stack([walk, np.roll(walk, 1)], axis=1))
    return np.concatenate(edges)


def retrieval_edges(
    similarity: Float[np.ndarray, "image image"], config: Retrieval, first_key: int
) -> Int[np.ndarray, "pair 2"]:
    """Key images with each other, every other image with the key image most similar to it, and nearest neighbours."""
    edges = [np.zeros((0, 2), np.int64)]
    if config.num_key > 0:
        key = farthest_point_sampling(1 - similarity, config.num_key, first_key)
        edges.append(key[complete_edges(len(key))])
        others = np.setdiff1d(np.arange(len(similarity)), key)
        edges.append(np.stack([others, key[similarity[np.ix_(others, key)].argmax(axis=1)]], axis=1))
    if config.num_neighbours > 0:
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : config.num_neighbours]
        edges.append(np.stack([np.repeat(np.arange(len(similarity)), nearest.shape[1]), nearest.ravel()], axis=1))
    return np.concatenate(edges)


def farthest_point_sampling(
    distance: Float[np.ndarray, "image image"], num_samples: int, first: int
) -> Int[np.ndarray, "sample"]:
    """Starting from `first`, add the image that is farthest from all chosen ones, again and again."""
    chosen = [first]
    to_chosen = distance[first].copy()
    while len(chosen) < min(num_samples, len(distance)):
        to_chosen[chosen] = -np.inf  # never twice, whatever the similarity of an image with itself is said to be
        chosen.append(int(to_chosen.argmax()))
        to_chosen = np.minimum(to_chosen, distance[chosen[-1]])
    return np.array(chosen, np.int64)


def near(num_images: int, prefilter: Prefilter) -> Bool[np.ndarray, "image image"]:
    """Which images are near each other in order, as a matrix."""
    allowed = np.zeros((num_images, num_images), bool)
    edges = keep_near(complete_edges(num_images), num_images, prefilter)
    allowed[edges[:, 0], edges[:, 1]] = allowed[edges[:, 1], edges[:, 0]] = True
    return allowed


def keep_near(edges: Int[np.ndarray, "pair 2"], num_images: int, prefilter: Prefilter) -> Int[np.ndarray, "kept 2"]:
    """Edges whose ends are near each other in order."""
    distance = np.abs(edges[:, 0] - edges[:, 1])
    if prefilter.cyclic:
        distance = np.minimum(distance, num_images - distance)
    return edges[distance <= prefilter.max_distance]
