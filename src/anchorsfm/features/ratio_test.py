"""Mutual nearest neighbours with the ratio test, by an inverted file.

Comparing all descriptors of two images costs a second per pair at 12,000 each. Instead those of one image are sorted
into cells by k-means, and those of the other are compared only with the cells whose centres are most similar to them
(Jegou et al., "Product quantization for nearest neighbor search", PAMI 2011, the coarse part). A true match is close
and seldom missed. The cells are an image's own, so that the matches of a pair depend on its two images only.

Descriptors are compared in 7 bits, which change their distances by less than their noise: 8-bit integers with a sign
then hold them, whose products processors sum up several times faster than floating point (and exactly, either way).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, Int32, Num, UInt8

from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.config import DescriptorMatchingConfig
from anchorsfm.features.one_to_one import one_to_one_of_sorted
from anchorsfm.features.sift import DESCRIPTOR_NORM
from anchorsfm.io.store import digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.errors import InputError

VERSION = 2
"""Raise when results change: what older versions cached is then ignored."""
CELL_SIZE = 256
"""Mean number of descriptors in a cell; images with few descriptors are one cell, which makes the search exact."""
MIN_CELLS = 16
PROBES = 6
"""Cells that a descriptor is compared with."""
LLOYD_ROUNDS = 6
NORM = DESCRIPTOR_NORM / 2
"""Norm of a descriptor in 7 bits."""
UNSEEN = -1


class RatioTestMatcher:
    """Compares RootSIFT descriptors. Scores are 1 minus the ratio of the distances to the best and second best."""

    is_concurrent = True
    licence: LicenceRecord | None = None

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

    descriptor: Int8[torch.Tensor, "descriptor 128"]
    keypoint: Int[np.ndarray, "descriptor"]
    cells: tuple[Int8[torch.Tensor, "128 _"], ...]
    """Descriptors of every cell, one a column."""
    centre: Int8[torch.Tensor, "128 cell"]

    @property
    def start(self) -> Int[np.ndarray, "cell_plus_1"]:
        """Descriptors of cell c are rows start[c]:start[c + 1]."""
        return np.cumsum([0, *(cell.shape[1] for cell in self.cells)])


def build_index(features: Features) -> DescriptorIndex:
    descriptor = torch.from_numpy(features.descriptor)
    num_cells = len(descriptor) // CELL_SIZE
    if num_cells < MIN_CELLS:
        num_cells = 1
    centre, cell = _cluster(descriptor.float(), num_cells)
    order = torch.argsort(cell, stable=True)
    count = np.bincount(cell.numpy(), minlength=num_cells)
    by_cell = _in_7_bits(descriptor[order])
    return DescriptorIndex(
        descriptor=by_cell,
        keypoint=features.keypoint.astype(np.int64)[order.numpy()],
        cells=tuple(part.T.contiguous() for part in torch.split(by_cell, count.tolist())),
        centre=(centre * NORM).round().clamp_max(127).to(torch.int8).T.contiguous(),
    )


def _in_7_bits(descriptor: UInt8[torch.Tensor, "descriptor 128"]) -> Int8[torch.Tensor, "descriptor 128"]:
    """Half of each component; halves are rounded to even ones, so that products are right on average."""
    return torch.round(descriptor.float() / 2).clamp_max(127).to(torch.int8)


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
    found = _search(index_i.descriptor, index_j)
    near = np.maximum(2 - 2 * found.best / NORM**2, 0)
    far = np.maximum(2 - 2 * found.second / NORM**2, 0)
    is_mutual = found.best == found.best_of_column[found.column]
    row = np.flatnonzero((near < max_ratio**2 * far) & is_mutual & (found.best > UNSEEN))
    row = row[np.argsort(-found.best[row], kind="stable")]
    pairs = np.stack([index_i.keypoint[row], index_j.keypoint[found.column[row]]], axis=1)
    score = 1 - np.sqrt(near[row] / far[row])
    return one_to_one_of_sorted(pairs, score)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Products (NORM^2 times the cosine) of queries with the descriptors of an index; UNSEEN where none was compared.

    They are integers: equality identifies the maximum of a column, and no outcome depends on an order of summation.
    """

    best: Int32[np.ndarray, "query"]
    second: Int32[np.ndarray, "query"]
    column: Int32[np.ndarray, "query"]
    """Row of the best descriptor."""
    best_of_column: Int32[np.ndarray, "descriptor"]
    """Best product of every descriptor with any query."""


def _search(query: Int8[torch.Tensor, "query 128"], index: DescriptorIndex) -> _Found:
    """Compare every query with the cells it probes."""
    visits = _visits(query, index)
    num_visits = len(visits.query)
    best = np.full(num_visits, UNSEEN, np.int32)
    second, column = best.copy(), np.zeros(num_visits, np.int32)
    best_of_column = np.full(len(index.descriptor), UNSEEN, np.int32)
    start = index.start
    # one buffer for all products: fresh memory would cost as much as they do
    buffer = torch.empty(int(np.diff(visits.start).max() * np.diff(start).max()), dtype=_PRODUCT)
    visitor = torch.from_numpy(visits.query)
    for cell, descriptor in enumerate(index.cells):
        first, last = visits.start[cell], visits.start[cell + 1]
        low, high = start[cell], start[cell + 1]
        if low == high or first == last:
            continue
        product = buffer[: (last - first) * (high - low)].view(last - first, high - low)
        _multiply(query.index_select(0, visitor[first:last]), descriptor, product)
        best_of_column[low:high] = product.amax(0).numpy()
        table, row = product.numpy(), np.arange(last - first)
        argmax = table.argmax(1)
        best[first:last] = table[row, argmax]
        column[first:last] = low + argmax
        table[row, argmax] = UNSEEN
        second[first:last] = product.amax(1).numpy()
    per_probe = best[visits.place]
    probe, row = per_probe.argmax(0), np.arange(len(query))
    place, overall = visits.place[probe, row], per_probe[probe, row]
    per_probe[probe, row] = UNSEEN
    return _Found(
        best=overall,
        second=np.maximum(second[place], per_probe.max(0)),
        column=column[place],
        best_of_column=best_of_column,
    )


@dataclass(frozen=True, kw_only=True)
class _Visits:
    """Which queries are compared with which cells, sorted by cell."""

    query: Int[np.ndarray, "visit"]
    start: Int[np.ndarray, "cell_plus_1"]
    """Visits of cell c are rows start[c]:start[c + 1]."""
    place: Int[np.ndarray, "probe query"]
    """Row of each visit of a query."""


def _visits(query: Int8[torch.Tensor, "query 128"], index: DescriptorIndex) -> _Visits:
    num_cells = len(index.cells)
    likeness = torch.empty(len(query), num_cells, dtype=_PRODUCT)
    _multiply(query, index.centre, likeness)
    skipped = max(num_cells - PROBES, 0)
    probed = np.argpartition(likeness.numpy(), skipped, axis=1)[:, skipped:].T
    cell = probed.reshape(-1).astype(np.uint16 if num_cells < 2**16 else np.int64)  # short integers sort fast
    by_cell = np.argsort(cell, kind="stable")
    place = np.empty_like(by_cell)
    place[by_cell] = np.arange(len(by_cell))
    return _Visits(
        query=by_cell % len(query),
        start=np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=num_cells))]),
        place=place.reshape(-1, len(query)),
    )


def _multiply(
    a: Int8[torch.Tensor, "row 128"], b: Int8[torch.Tensor, "128 column"], out: Num[torch.Tensor, "row column"]
) -> None:
    """a @ b into an array of type _PRODUCT. Sums stay below 2^24, so that floating point is exact too."""
    if out.dtype == torch.int32:
        torch._int_mm(a, b, out=out)
    else:
        torch.mm(a.float(), b.float(), out=out)


def _product_type() -> torch.dtype:
    """Integers where torch knows how to use the processor's instructions for products of 8-bit integers."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return torch.int32 if hasattr(torch, "_int_mm") and supported is not None and supported() else torch.float32


_PRODUCT = _product_type()
