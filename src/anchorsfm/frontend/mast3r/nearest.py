"""Exact nearest neighbours among the pixels of an image: by descriptor (dot product) or by 3D point (distance).

Comparing every query with every descriptor is one matrix product; on a processor the product is cheap and what follows
is not: writing the scores to memory and looking for the largest one by one takes six times as long. So

 1. scores are made in blocks that stay in cache, from descriptors rounded to 8 bits where the processor is fast at it,
    and only the largest of every tile of 16 x 16 pixels is kept;
 2. with |d - d'| <= e_d the error of a rounded descriptor and q, q', e_q the same for a query,
        |q.d - q'.d'| <= e_q |d| + |q'| e_d
    by the Cauchy-Schwarz inequality, so only tiles whose largest rounded score comes within twice that of the best can
    hold the nearest neighbour: a few of hundreds;
 3. these are scored in float32, and the first pixel with the largest score wins, as if all had been compared.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

_TILE = 16
_TILE_PIXELS = _TILE**2
_ROWS = 16
"""Queries scored against a tile at once. Matrix products with fewer rows run other code that sums in another order."""
_CACHE_SCORES = {"cpu": 2**20, "other": 2**26}
"""Scores made at once in step 1: what fits into a processor's cache, or bounds a GPU's memory."""
_BLOCKS = (1024, 512, 256, 128, 64)
"""Queries per block in step 1, on a processor: few sizes, as code is generated for each."""
_MAX_SCREENED = 2**22
"""Tiles times queries whose largest scores are kept at once."""
_SLOTS = {"cpu": 128, "other": 8192}
"""Tiles scored at once in step 3."""
_NO_PIXEL = 2**62
_ROUNDING = 4e-6
"""Error of a float32 product of unit vectors, generously."""


@runtime_checkable
class PixelSearch(Protocol):
    """Finds, for pixels of one image, the nearest pixel of the other. Pixels are numbered row by row."""

    def __call__(self, pixels: Int[Tensor, "query"]) -> Int[Tensor, "query"]: ...


class DescriptorMap:
    """The descriptors of an image, arranged for searching. May live on any device."""

    def __init__(self, descriptors: Float[Tensor, "h w channel"], eight_bits: bool | None = None) -> None:
        """`eight_bits` forces or forbids the rounding of step 1; the result is the same."""
        descriptors = descriptors.float()
        device = descriptors.device
        self.shape_hw = (descriptors.shape[0], descriptors.shape[1])
        self.rows = descriptors.reshape(-1, descriptors.shape[-1])
        self._pixels = _tile_pixels(self.shape_hw, device)
        tiled = self.rows[self._pixels]
        self._tiles = tiled.transpose(1, 2).contiguous()
        self._kind = "cpu" if device.type == "cpu" else "other"
        self._eight_bits = _eight_bits_are_faster(device.type) if eight_bits is None else eight_bits
        self._length = float(self.rows.norm(dim=1).max())
        assert math.isfinite(self._length), "descriptors must be finite"
        self._scale = _scale(self.rows)
        self._coarse = self._round(tiled.flatten(0, 1), self._scale)
        self._error = float(self._rounding_error(self.rows, self._scale).max())

    def nearest(self, queries: Float[Tensor, "query channel"]) -> Int[Tensor, "query"]:
        """Pixel with the largest dot product; the first of equals."""
        if len(queries) == 0:
            return torch.empty(0, dtype=torch.int64, device=queries.device)
        padding = queries[:1].expand(-len(queries) % _BLOCKS[-1], -1)
        padded = torch.cat((queries, padding)).float().contiguous()
        chunk = max(1, _MAX_SCREENED // len(self._tiles) // _BLOCKS[0]) * _BLOCKS[0]
        return torch.cat([self._nearest(part) for part in padded.split(chunk)])[: len(queries)]

    def _nearest(self, queries: Float[Tensor, "query channel"]) -> Int[Tensor, "query"]:
        scale = _scale(queries)
        coarse = self._screen(self._round(queries, scale))
        error, length = self._rounding_error(queries, scale), queries.norm(dim=1)
        margin = error * self._length + (length + error) * self._error + _ROUNDING * length * self._length
        unit = scale * self._scale if self._eight_bits else 1.0
        tile, query = (coarse >= coarse.amax(0) - 2 * margin * unit).nonzero(as_tuple=True)
        return self._decide(queries, tile, query)

    # ------------------------------------------------------------------------------------------------------ step 1

    def _round(self, values: Float[Tensor, "row channel"], scale: float) -> Tensor:
        return (values * scale).round_().to(torch.int8) if self._eight_bits else values

    def _rounding_error(self, values: Float[Tensor, "row channel"], scale: float) -> Float[Tensor, "row"]:
        if not self._eight_bits:
            return values.new_zeros(len(values))
        return (values - self._round(values, scale) / scale).norm(dim=1)

    def _screen(self, queries: Tensor) -> Float[Tensor, "tile query"]:
        """Largest rounded score of every tile (times both scales)."""
        blocks = queries.split(_block_sizes(len(queries)) if self._kind == "cpu" else [len(queries)])
        return torch.cat([self._screen_block(block) for block in blocks]).T.float().contiguous()

    def _screen_block(self, queries: Tensor) -> Tensor:
        """As integers or floats, one row per query."""
        product: Callable[..., Tensor] = torch._int_mm if self._eight_bits else torch.mm
        count = len(queries)
        tiles = max(1, _CACHE_SCORES[self._kind] // (count * _TILE_PIXELS))
        # One buffer for all products: fresh memory for each would cost more than the product.
        kind = torch.int32 if self._eight_bits else torch.float32
        scores = torch.empty(count * tiles * _TILE_PIXELS, dtype=kind, device=queries.device)
        largest = []
        for part in self._coarse.T.split(tiles * _TILE_PIXELS, dim=1):
            out = scores[: count * part.shape[1]].view(count, part.shape[1])
            product(queries, part, out=out)
            largest.append(out.view(count, -1, _TILE_PIXELS).amax(2))
        return torch.cat(largest, dim=1)

    # ------------------------------------------------------------------------------------------------------ step 3

    def _decide(
        self, queries: Float[Tensor, "query channel"], tile: Int[Tensor, "candidate"], query: Int[Tensor, "candidate"]
    ) -> Int[Tensor, "query"]:
        """The best pixel of each query among its candidate tiles. Candidates are sorted by tile."""
        slot_tile, slot_query = _slots(tile, query, len(self._tiles))
        best = queries.new_full((len(queries),), -torch.inf)
        winner = torch.full((len(queries),), _NO_PIXEL, device=queries.device)
        size = _SLOTS[self._kind]
        for tiles, rows in zip(slot_tile.split(size), slot_query.split(size), strict=True):
            scores, position = torch.bmm(queries[rows], self._tiles[tiles]).max(dim=2)
            pixel = self._pixels[tiles].gather(1, position)
            _keep_best(best, winner, rows.flatten(), scores.flatten(), pixel.flatten())
        return winner


class DescriptorSearch:
    """Nearest by descriptor, from the pixels of one map to those of another."""

    def __init__(self, source: DescriptorMap, target: DescriptorMap) -> None:
        self.source = source
        self.target = target

    def __call__(self, pixels: Int[Tensor, "query"]) -> Int[Tensor, "query"]:
        return self.target.nearest(self.source.rows[pixels])


class PointSearch:
    """Nearest by distance, from the rows of one array to those of another (on the CPU; 3D points of pixels)."""

    def __init__(self, source: Float[np.ndarray, "source axis"], target: Float[np.ndarray, "target axis"]) -> None:
        self.source = source
        self.tree = cKDTree(target)

    def __call__(self, pixels: Int[Tensor, "query"]) -> Int[Tensor, "query"]:
        _, nearest = self.tree.query(self.source[pixels.cpu().numpy()])
        return torch.from_numpy(np.asarray(nearest, np.int64))


def _tile_pixels(shape_hw: tuple[int, int], device: torch.device) -> Int[Tensor, "tile pixel"]:
    """Pixels of every tile in increasing order; tiles that reach over the edge repeat the last row or column."""
    rows, columns = (
        torch.arange(-(-side // _TILE) * _TILE, device=device).clamp(max=side - 1).reshape(-1, _TILE)
        for side in shape_hw
    )
    pixels = rows[:, None, :, None] * shape_hw[1] + columns[None, :, None, :]
    return pixels.reshape(-1, _TILE_PIXELS)


def _block_sizes(num_rows: int) -> list[int]:
    """Sizes of `_BLOCKS` that add up to `num_rows`, a multiple of the smallest."""
    sizes = []
    for size in _BLOCKS:
        sizes += [size] * (num_rows // size)
        num_rows %= size
    return sizes


def _scale(values: Float[Tensor, "row channel"]) -> float:
    """Brings the largest number to 127."""
    largest = float(values.abs().max())
    return 127 / largest if largest > 0 else 1.0


def _slots(
    tile: Int[Tensor, "candidate"], query: Int[Tensor, "candidate"], num_tiles: int
) -> tuple[Int[Tensor, "slot"], Int[Tensor, "slot row"]]:
    """Candidates of one tile in groups of `_ROWS` queries; groups that are not full repeat their first query."""
    count = torch.bincount(tile, minlength=num_tiles)
    slots = (count + _ROWS - 1) // _ROWS
    rank = torch.arange(len(tile), device=tile.device) - (count.cumsum(0) - count)[tile]
    slot = (slots.cumsum(0) - slots)[tile] + rank // _ROWS
    slot_tile = torch.repeat_interleave(torch.arange(num_tiles, device=tile.device), slots)
    slot_query = query[rank % _ROWS == 0][:, None].repeat(1, _ROWS)
    slot_query[slot, rank % _ROWS] = query
    return slot_tile, slot_query


def _keep_best(
    best: Float[Tensor, "query"],
    winner: Int[Tensor, "query"],
    query: Int[Tensor, "candidate"],
    score: Float[Tensor, "candidate"],
    pixel: Int[Tensor, "candidate"],
) -> None:
    """Update the best score of each query and the first pixel that has it, in place."""
    before = best.clone()
    best.scatter_reduce_(0, query, score, "amax")
    winner[best > before] = _NO_PIXEL
    equal = score == best[query]
    winner.scatter_reduce_(0, query[equal], pixel[equal], "amin")


@cache
def _eight_bits_are_faster(device_type: str) -> bool:
    """Whether this processor multiplies 8-bit integers faster than floats; the results do not depend on it."""
    if device_type != "cpu" or not hasattr(torch, "_int_mm"):
        return False
    integers = (torch.arange(_BLOCKS[0] * 24).reshape(-1, 24) % 255 - 127).to(torch.int8)
    floats = integers.float()
    try:
        # The function is not in torch's public interface: where it fails a trial, do without.
        for rows in _BLOCKS:
            if not torch.equal(torch._int_mm(integers[:rows], integers.T).float(), floats[:rows] @ floats.T):
                return False
        return _seconds(torch._int_mm, integers) < 0.8 * _seconds(torch.mm, floats)
    except RuntimeError:
        return False


def _seconds(product: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> float:
    """Shortest time of a few products."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        product(values, values.T)
        times.append(time.perf_counter() - start)
    return min(times)
