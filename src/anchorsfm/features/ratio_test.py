"""Mutual nearest neighbours with the ratio test, by an inverted file.

Comparing all descriptors of two images costs a second per pair at 12,000 each. Instead those of one image are sorted
into cells by k-means, and those of the other are compared only with the cells whose centres are most similar to them
(Jegou et al., "Product quantization for nearest neighbor search", PAMI 2011, the coarse part). A true match is close
and seldom missed. The cells are an image's own, so that the matches of a pair depend on its two images only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.config import DescriptorMatchingConfig
from anchorsfm.features.sift import DESCRIPTOR_NORM
from anchorsfm.io.store import digest
from anchorsfm.scene.errors import InputError

VERSION = 1
"""Raise when results change: what older versions cached is then ignored."""
CELL_SIZE = 192
"""Mean number of descriptors in a cell; images with few descriptors are one cell, which makes the search exact."""
MIN_CELLS = 16
PROBES = 8
"""Cells that a descriptor is compared with."""
LLOYD_ROUNDS = 6
UNSEEN = -1.0


class RatioTestMatcher:
    """Compares RootSIFT descriptors. Scores are 1 minus the ratio of the distances to the best and second best."""

    is_concurrent = True

    def __init__(self, config: DescriptorMatchingConfig) -> None:
        self._max_ratio = config.max_ratio
        self.digest = digest("ratio test", VERSION, config.max_ratio)

    def prepare(self, features: Features) -> "DescriptorIndex":
        """Raises InputError for descriptors that are not SIFT's."""
        if features.descriptor.dtype != np.uint8:
            raise InputError("the ratio test compares SIFT's descriptors: these are of another detector")
        return build_index(features)

    def match(self, i: "DescriptorIndex", j: "DescriptorIndex") -> FeatureMatches:
        return match(i, j, self._max_ratio)


@dataclass(frozen=True, kw_only=True)
class DescriptorIndex:
    """Descriptors of an image sorted by cell."""

    descriptor: UInt8[torch.Tensor, "descriptor 128"]
    keypoint: Int[torch.Tensor, "descriptor"]
    centre: Float[torch.Tensor, "cell 128"]
    start: Int[np.ndarray, "cell_plus_1"]
    """Descriptors of cell c are rows start[c]:start[c + 1]."""


def build_index(features: Features) -> DescriptorIndex:
    descriptor = torch.from_numpy(features.descriptor)
    num_cells = len(descriptor) // CELL_SIZE
    if num_cells < MIN_CELLS:
        num_cells = 1
    centre, cell = _cluster(descriptor.float(), num_cells)
    order = torch.argsort(cell, stable=True)
    count = np.bincount(cell.numpy(), minlength=num_cells)
    return DescriptorIndex(
        descriptor=descriptor[order],
        keypoint=torch.from_numpy(features.keypoint).long()[order],
        centre=centre,
        start=np.concatenate([[0], np.cumsum(count)]),
    )


def _cluster(
    descriptor: Float[torch.Tensor, "descriptor 128"], num_cells: int
) -> tuple[Float[torch.Tensor, "cell 128"], Int[torch.Tensor, "descriptor"]]:
    """Unit centres by spherical k-means from evenly spaced descriptors, and the cell of each descriptor."""
    cell = torch.zeros(len(descriptor), dtype=torch.int64)
    if num_cells == 1:
        return torch.zeros(1, 128), cell
    centre = descriptor[torch.linspace(0, len(descriptor) - 1, num_cells).long()]
    for _ in range(LLOYD_ROUNDS):
        cell = (descriptor @ torch.nn.functional.normalize(centre, dim=1).T).argmax(1)
        centre = torch.zeros_like(centre).index_add_(0, cell, descriptor)
    return torch.nn.functional.normalize(centre, dim=1), cell


def match(index_i: DescriptorIndex, index_j: DescriptorIndex, max_ratio: float) -> FeatureMatches:
    """Mutual nearest neighbours that are closer than the second best by the ratio."""
    if len(index_i.descriptor) < 2 or len(index_j.descriptor) < 2:
        return FeatureMatches.empty()
    found = _search(index_i.descriptor.float(), index_j)
    norm = DESCRIPTOR_NORM**2
    near = (2 - 2 * found.best / norm).clamp_min(0)
    far = (2 - 2 * found.second / norm).clamp_min(0)
    is_mutual = found.best == found.best_of_column[found.column]
    row = torch.nonzero((near < max_ratio**2 * far) & is_mutual & (found.best > UNSEEN))[:, 0]
    row = row[torch.argsort(found.best[row], descending=True, stable=True)]
    pairs = torch.stack([index_i.keypoint[row], index_j.keypoint[found.column[row]]], dim=1).numpy()
    score = 1 - torch.sqrt(near[row] / far[row]).numpy()
    chosen = np.flatnonzero(_first_of_both(pairs))
    chosen = chosen[np.lexsort((pairs[chosen, 1], pairs[chosen, 0]))]
    return FeatureMatches(keypoint=pairs[chosen].astype(np.int32), score=score[chosen])


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Products (512^2 times the cosine) of queries with the descriptors of an index; UNSEEN where none was compared."""

    best: Float[torch.Tensor, "query"]
    second: Float[torch.Tensor, "query"]
    column: Int[torch.Tensor, "query"]
    """Row of the best descriptor."""
    best_of_column: Float[torch.Tensor, "descriptor"]
    """Best product of every descriptor with any query."""


def _search(query: Float[torch.Tensor, "query 128"], index: DescriptorIndex) -> _Found:
    """Compare every query with the cells it probes.

    Stored descriptors are integers, so that products sum up exactly in float32: equality identifies the maximum of a
    column, and the outcome does not depend on the order of summation.
    """
    descriptor = index.descriptor.float()
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
        product = query[rows] @ descriptor[low:high].T
        column_best[low:high] = product.amax(0)
        value, argmax = product.max(1)
        runner_up = product.scatter_(1, argmax[:, None], UNSEEN).amax(1)
        old, old_second = best[rows], second[rows]
        second[rows] = torch.maximum(torch.minimum(old, value), torch.maximum(old_second, runner_up))
        column[rows] = torch.where(value > old, low + argmax, column[rows])
        best[rows] = torch.maximum(old, value)
    return _Found(best=best, second=second, column=column, best_of_column=column_best)


def _first_of_both(pairs: Int[np.ndarray, "candidate 2"]) -> Bool[np.ndarray, "candidate"]:
    """Of pairs sorted best first, those whose both ends did not occur before."""
    first_i = np.zeros(len(pairs), bool)
    first_i[np.unique(pairs[:, 0], return_index=True)[1]] = True
    first_j = np.zeros(len(pairs), bool)
    first_j[np.unique(pairs[:, 1], return_index=True)[1]] = True
    return first_i & first_j
