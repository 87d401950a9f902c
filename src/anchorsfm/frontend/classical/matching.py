"""Mutual nearest neighbours with the ratio test, by blocked matrix products."""

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.frontend.classical.features import DESCRIPTOR_NORM, Features

BLOCK_ROWS = 256
"""Rows of the similarity matrix held at a time: 8 MB against 8192 descriptors, so that they stay in the CPU cache."""


def match(features_i: Features, features_j: Features, max_ratio: float) -> Int[np.ndarray, "match 2"]:
    """Rows (keypoint of i, keypoint of j); each keypoint occurs at most once."""
    if len(features_i.descriptor) < 2 or len(features_j.descriptor) < 2:
        return np.zeros((0, 2), np.int32)
    row, column, similarity = _mutual_neighbours(features_i, features_j, max_ratio)
    pairs = np.stack([features_i.keypoint[row], features_j.keypoint[column]], axis=1)
    best_first = np.argsort(-similarity, kind="stable")
    chosen = _one_to_one(pairs[best_first])
    return chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))]


def _mutual_neighbours(
    features_i: Features, features_j: Features, max_ratio: float
) -> tuple[Int[np.ndarray, "match"], Int[np.ndarray, "match"], Float[np.ndarray, "match"]]:
    """Descriptor rows of i and of j, and their cosine.

    Stored descriptors are integers whose products sum up exactly in float32, so that equality identifies the maximum
    of a column and the outcome does not depend on the order of summation.
    """
    import torch

    a = torch.from_numpy(features_i.descriptor).float()
    b = torch.from_numpy(features_j.descriptor).float().T.contiguous()
    column_best = torch.full((b.shape[1],), -1.0)
    best, second, index = [], [], []
    for block in a.split(BLOCK_ROWS):
        product = block @ b
        torch.maximum(column_best, product.amax(0), out=column_best)
        value, argmax = product.max(1)
        product.scatter_(1, argmax[:, None], -1.0)
        best.append(value)
        second.append(product.amax(1))
        index.append(argmax)
    top, runner_up, column = torch.cat(best), torch.cat(second), torch.cat(index)
    norm = DESCRIPTOR_NORM**2
    near = (2 - 2 * top / norm).clamp_min(0)
    far = (2 - 2 * runner_up / norm).clamp_min(0)
    keep = (near < max_ratio**2 * far) & (top == column_best[column])
    row = torch.nonzero(keep)[:, 0]
    return row.numpy(), column[row].numpy(), (top[row] / norm).numpy()


def _one_to_one(pairs: Int[np.ndarray, "candidate 2"]) -> Int[np.ndarray, "match 2"]:
    """Of pairs sorted best first, those whose both ends did not occur before."""
    first_i = np.zeros(len(pairs), bool)
    first_i[np.unique(pairs[:, 0], return_index=True)[1]] = True
    first_j = np.zeros(len(pairs), bool)
    first_j[np.unique(pairs[:, 1], return_index=True)[1]] = True
    return pairs[first_i & first_j]
