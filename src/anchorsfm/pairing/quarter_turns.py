"""How pictures are turned in their plane against each other, in quarter turns, from matches of their keypoints.

Detectors that were trained on upright pictures find little in common between pictures of which one lies on its side.
The angle by which matched points of a pair are turned is that of the best similarity between them; rounded to quarter
turns, where it is near one, and carried along the pairs with most matches it gives every picture a turn after which
they all stand as most of them do.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from anchorsfm.geometry.links import connected_groups

MAX_OFF = 0.3
"""Quarter turns by which the angle of a pair may differ from a whole number of them."""
_SWEEPS = 3


def turn_between(xy_i: Float[np.ndarray, "match 2"], xy_j: Float[np.ndarray, "match 2"]) -> float:
    """By how many quarter turns, clockwise as pictures are seen, points of i must be turned to lie like those of j."""
    p, q = xy_i - xy_i.mean(axis=0), xy_j - xy_j.mean(axis=0)
    return float(np.arctan2((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum(), (p * q).sum()) / (np.pi / 2))


def quarter_turns(
    num_images: int,
    pairs: Int[np.ndarray, "pair 2"],
    between: Float[np.ndarray, "pair"],
    weight: Float[np.ndarray, "pair"],
) -> Int[np.ndarray, "image"]:
    """Counter-clockwise quarter turns after which pictures stand alike, 0 for most of those that pairs connect.

    Args:
        num_images: of the set.
        pairs: that match.
        between: `turn_between` of each.
        weight: number of matches.
    """
    whole = np.round(between)
    clear = (np.abs(between - whole) < MAX_OFF) & (weight > 0)
    pairs, steps, weight = pairs[clear], whole[clear].astype(np.int64), weight[clear]
    turns = np.zeros(num_images, np.int64)
    if not (steps % 4).any():
        return turns
    ends = (pairs[:, 0], pairs[:, 1])
    step = {(int(i), int(j)): int(s) for (i, j), s in zip(pairs, steps, strict=True)}
    tree = minimum_spanning_tree(csr_array((1 / weight, ends), (num_images, num_images)))
    group = connected_groups(num_images, pairs)
    for first in np.unique(group, return_index=True)[1].tolist():
        order, parent = breadth_first_order(tree, first, directed=False)
        for image in order[1:].tolist():
            before = int(parent[image])
            forward = step.get((before, image))
            turns[image] = turns[before] + (-step[image, before] if forward is None else forward)
    for _ in range(_SWEEPS):  # what all pairs of an image say together
        votes = np.zeros((num_images, 4))
        np.add.at(votes, (ends[1], (turns[ends[0]] + steps) % 4), weight)
        np.add.at(votes, (ends[0], (turns[ends[1]] - steps) % 4), weight)
        turns = np.where(votes.any(axis=1), votes.argmax(axis=1), 0)
    usual = np.zeros(group.max() + 1, np.int64)
    for number in range(len(usual)):
        usual[number] = np.bincount(turns[group == number], minlength=4).argmax()
    return np.asarray((turns - usual[group]) % 4)
