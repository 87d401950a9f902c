"""Mutual nearest neighbours with the ratio test, by an inverted file.

Comparing all descriptors of two images costs a second per pair at 12,000 each. Instead those of one image are sorted
into cells by k-means, and those of the other are compared only with the cells whose centres are most similar to them
(Jegou et al., "Product quantization for nearest neighbor search", PAMI 2011, the coarse part). A true match is close
and seldom missed. The cells are an image's own, so that the matches of a pair depend on its two images only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from anchorsfm.frontend.classical.features import DESCRIPTOR_NORM, Features

CELL_SIZE = 192
"""Mean number of descriptors in a cell; images with few descriptors are one cell, which makes the search exact."""
MIN_CELLS = 16
PROBES = 8
"""Cells that a descriptor is compared with."""
LLOYD_ROUNDS = 6
UNSEEN = -1.0


@dataclass(frozen=True, kw_only=True)
class DescriptorIndex:
    """Descriptors of an image sorted by cell.

    Stored descriptors are integers, so that products of two sum up exactly in float32 and the outcome does not depend
    on the order of summation.
    """

    descriptor: Float[torch.Tensor, "descriptor 128"]
    keypoint: Int[torch.Tensor, "descriptor"]
    centre: Float[torch.Tensor, "cell 128"]
    start: Int[np.ndarray, "cell_plus_1"]
    """Descriptors of cell c are rows start[c]:start[c + 1]."""


def build_index(features: Features) -> DescriptorIndex:
    descriptor = torch.from_numpy(features.descriptor).float()
    num_cells = len(descriptor) // CELL_SIZE
    if num_cells < MIN_CELLS:
        num_cells = 1
    centre = descriptor[torch.linspace(0, max(len(descriptor) - 1, 0), num_cells).long()] if len(descriptor) else None
    if centre is None:
        return DescriptorIndex(
            descriptor=descriptor,
            keypoint=torch.zeros(0, dtype=torch.int64),
            centre=torch.zeros(1, 128),
            start=np.zeros(2, np.int64),
        )
    cell = torch.zeros(len(descriptor), dtype=torch.int64)
    for _ in range(LLOYD_ROUNDS if num_cells > 1 else 0):
        centre = torch.nn.functional.normalize(centre, dim=1)
        cell = (descriptor @ centre.T).argmax(1)
        centre = torch.zeros_like(centre).index_add_(0, cell, descriptor)
    order = torch.argsort(cell, stable=True)
    count = np.bincount(cell.numpy(), minlength=num_cells)
    return DescriptorIndex(
        descriptor=descriptor[order],
        keypoint=torch.from_numpy(features.keypoint).long()[order],
        centre=torch.nn.functional.normalize(centre, dim=1),
        start=np.concatenate([[0], np.cumsum(count)]),
    )


def match(index_i: DescriptorIndex, index_j: DescriptorIndex, max_ratio: float) -> Int[np.ndarray, "match 2"]:
    """Rows (keypoint of i, keypoint of j), sorted; each keypoint occurs at most once."""
    if len(index_i.descriptor) < 2 or len(index_j.descriptor) < 2:
        return np.zeros((0, 2), np.int32)
    best, second, column, column_best = _search(index_i.descriptor, index_j)
    norm = DESCRIPTOR_NORM**2
    near = (2 - 2 * best / norm).clamp_min(0)
    far = (2 - 2 * second / norm).clamp_min(0)
    row = torch.nonzero((near < max_ratio**2 * far) & (best == column_best[column]) & (best > UNSEEN))[:, 0]
    row = row[torch.argsort(best[row], descending=True, stable=True)]
    pairs = torch.stack([index_i.keypoint[row], index_j.keypoint[column[row]]], dim=1).numpy()
    chosen = _one_to_one(pairs).astype(np.int32)
    return chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))]


def _search(
    query: Float[torch.Tensor, "query 128"], index: DescriptorIndex
) -> tuple[
    Float[torch.Tensor, "query"],
    Float[torch.Tensor, "query"],
    Int[torch.Tensor, "query"],
    Float[torch.Tensor, "descriptor"],
]:
    """Products of every query with its best and second best descriptor, row of the best; best product per descriptor."""
    best = torch.full((len(query),), UNSEEN)
    second = torch.full((len(query),), UNSEEN)
    column = torch.zeros(len(query), dtype=torch.int64)
    column_best = torch.full((len(index.descriptor),), UNSEEN)
    probes = min(PROBES, len(index.centre))
    probed = (query @ index.centre.T).topk(probes, dim=1).indices.T.reshape(-1)
    by_cell = torch.argsort(probed, stable=True)
    visitor = by_cell % len(query)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(probed.numpy(), minlength=len(index.centre)))])
    for cell in range(len(index.centre)):
        low, high = int(index.start[cell]), int(index.start[cell + 1])
        rows = visitor[bounds[cell] : bounds[cell + 1]]
        if low == high or len(rows) == 0:
            continue
        product = query[rows] @ index.descriptor[low:high].T
        column_best[low:high] = product.amax(0)
        value, argmax = product.max(1)
        runner_up = product.scatter_(1, argmax[:, None], UNSEEN).amax(1)
        old, old_second = best[rows], second[rows]
        second[rows] = torch.maximum(torch.minimum(old, value), torch.maximum(old_second, runner_up))
        column[rows] = torch.where(value > old, low + argmax, column[rows])
        best[rows] = torch.maximum(old, value)
    return best, second, column, column_best


def _one_to_one(pairs: Int[np.ndarray, "candidate 2"]) -> Int[np.ndarray, "match 2"]:
    """Of pairs sorted best first, those whose both ends did not occur before."""
    first_i = np.zeros(len(pairs), bool)
    first_i[np.unique(pairs[:, 0], return_index=True)[1]] = True
    first_j = np.zeros(len(pairs), bool)
    first_j[np.unique(pairs[:, 1], return_index=True)[1]] = True
    return pairs[first_i & first_j]
