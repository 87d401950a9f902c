"""Correspondences by fast reciprocal nearest neighbours (Leroy et al., MASt3R, 2024, section 3.3).

Mutual nearest neighbours of all pixels cost a search per pixel. Instead walks start from a grid of pixels of one image:
to the nearest pixel of the other image, back to the nearest of the first, and so on. A walk that comes back to where it
was has found a mutual pair. Scores never fall along a walk, so almost all end within a few rounds, many in the same
pairs. The nearest neighbour of a pixel is searched once: walks that meet share the rest, and walks from the other image
use what is known.

Pixels are numbered row by row. Networks without descriptors are matched in the same way by the distance of the 3D
points they predict for both images in one camera's frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anchorsfm.frontend.mast3r.nearest import DescriptorMap, DescriptorSearch, PixelSearch, PointSearch
from anchorsfm.scene.pairs import Matches

MAX_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class PixelPairs:
    """Pixels of image 1 and image 2 that show the same point, each pair once, sorted by the first, then the second."""

    first: Int[Tensor, "match"]
    second: Int[Tensor, "match"]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, kw_only=True)
class Correspondences:
    """Pixel pairs with a confidence each."""

    pairs: PixelPairs
    confidence: Float[Tensor, "match"]

    def to_matches(self, width_1: int, width_2: int) -> Matches:
        """In COLMAP pixels of the two grids: the centre of pixel (column, row) is (column + 0.5, row + 0.5)."""
        return Matches(
            xy_i=_pixel_centres(self.pairs.first, width_1),
            xy_j=_pixel_centres(self.pairs.second, width_2),
            confidence=self.confidence.cpu().numpy().astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True)
class MatchingPass:
    """What one decoder pass offers for matching image 1 with image 2."""

    forward: PixelSearch
    """From pixels of image 1 to their nearest of image 2."""
    backward: PixelSearch
    """From pixels of image 2 to their nearest of image 1."""
    confidence_1: Float[Tensor, "h1 w1"]
    confidence_2: Float[Tensor, "h2 w2"]


def descriptor_pass(
    descriptors_1: Float[Tensor, "h1 w1 channel"],
    descriptors_2: Float[Tensor, "h2 w2 channel"],
    confidence_1: Float[Tensor, "h1 w1"],
    confidence_2: Float[Tensor, "h2 w2"],
) -> MatchingPass:
    """Nearest is the largest dot product. Works on the device of the descriptors."""
    first, second = DescriptorMap(descriptors_1), DescriptorMap(descriptors_2)
    return MatchingPass(
        forward=DescriptorSearch(first, second),
        backward=DescriptorSearch(second, first),
        confidence_1=confidence_1,
        confidence_2=confidence_2,
    )


def point_pass(
    points_1: Float[Tensor, "h1 w1 3"],
    points_2: Float[Tensor, "h2 w2 3"],
    confidence_1: Float[Tensor, "h1 w1"],
    confidence_2: Float[Tensor, "h2 w2"],
) -> MatchingPass:
    """Nearest is the smallest distance of 3D points, both images' in one frame. Runs on the CPU."""
    first, second = (points.reshape(-1, 3).cpu().numpy() for points in (points_1, points_2))
    return MatchingPass(
        forward=PointSearch(first, second),
        backward=PointSearch(second, first),
        confidence_1=confidence_1.cpu(),
        confidence_2=confidence_2.cpu(),
    )


def extract_correspondences(passes: Sequence[MatchingPass], stride: int = 8) -> Correspondences:
    """Match in every pass, from image 1 and from image 2, and merge.

    Walks start from every `stride`-th pixel. The confidence of a pair is the geometric mean of the confidences of its
    two pixels, in the first pass that found it.
    """
    found = [_match_both_ways(one, stride) for one in passes]
    second_size = passes[0].confidence_2.numel()
    first = torch.cat([pairs.first for pairs in found])
    second = torch.cat([pairs.second for pairs in found])
    confidence = torch.cat([_confidence(one, pairs) for one, pairs in zip(passes, found, strict=True)])
    kept = first_of_each(first, second, second_size)
    return Correspondences(pairs=PixelPairs(first=first[kept], second=second[kept]), confidence=confidence[kept])


def fast_reciprocal(
    forward: PixelSearch,
    backward: PixelSearch,
    seeds: Int[Tensor, "seed"],
    *,
    second_size: int,
    max_rounds: int = MAX_ROUNDS,
) -> PixelPairs:
    """Walk from `seeds`, pixels of image 1, and keep the walks that come back to where they were.

    `second_size` is the number of pixels of image 2. Walks that have not ended after `max_rounds` are dropped.
    """
    start = torch.unique(seeds)
    first, second = start.clone(), torch.full_like(start, -1)
    walking = torch.ones_like(start, dtype=torch.bool)
    for _ in range(max_rounds):
        arrived = forward(first[walking])
        moved = arrived != second[walking]
        second[walking] = arrived
        walking[walking.clone()] = moved
        returned = backward(second[walking])
        moved = returned != first[walking]
        first[walking] = returned
        walking[walking.clone()] = moved
        if not walking.any():
            break
    first, second = first[~walking], second[~walking]
    kept = first_of_each(first, second, second_size)
    return PixelPairs(first=first[kept], second=second[kept])


def grid_pixels(shape_hw: tuple[int, int], stride: int, device: torch.device | None = None) -> Int[Tensor, "seed"]:
    """Every `stride`-th pixel in both directions, starting half a stride from the corner."""
    rows, columns = (torch.arange(stride // 2, side, stride, device=device) for side in shape_hw)
    return (rows[:, None] * shape_hw[1] + columns).flatten()


def first_of_each(first: Int[Tensor, "match"], second: Int[Tensor, "match"], second_size: int) -> Int[Tensor, "kept"]:
    """Where each different (first, second) occurs for the first time, sorted by first, then second."""
    key, position = torch.sort(first * second_size + second, stable=True)
    is_new = torch.ones_like(key, dtype=torch.bool)
    is_new[1:] = key[1:] != key[:-1]
    return position[is_new]


class _Remembered:
    """A search that asks for every pixel once."""

    def __init__(self, search: PixelSearch, size: int, device: torch.device) -> None:
        self.search = search
        self.nearest = torch.full((size,), -1, dtype=torch.int64, device=device)

    def __call__(self, pixels: Int[Tensor, "query"]) -> Int[Tensor, "query"]:
        unknown = torch.unique(pixels[self.nearest[pixels] < 0])
        if len(unknown):
            self.nearest[unknown] = self.search(unknown)
        return self.nearest[pixels]


def _match_both_ways(one: MatchingPass, stride: int) -> PixelPairs:
    """Pairs found from image 1, then those found from image 2; a pair found from both is listed twice."""
    device = one.confidence_1.device
    shape_1, shape_2 = _shape_hw(one.confidence_1), _shape_hw(one.confidence_2)
    size_1, size_2 = shape_1[0] * shape_1[1], shape_2[0] * shape_2[1]
    forward = _Remembered(one.forward, size_1, device)
    backward = _Remembered(one.backward, size_2, device)
    there = fast_reciprocal(forward, backward, grid_pixels(shape_1, stride, device), second_size=size_2)
    back = fast_reciprocal(backward, forward, grid_pixels(shape_2, stride, device), second_size=size_1)
    return PixelPairs(first=torch.cat((there.first, back.second)), second=torch.cat((there.second, back.first)))


def _confidence(one: MatchingPass, pairs: PixelPairs) -> Float[Tensor, "match"]:
    return (one.confidence_1.flatten()[pairs.first] * one.confidence_2.flatten()[pairs.second]).sqrt()


def _shape_hw(image: Float[Tensor, "h w"]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _pixel_centres(pixels: Int[Tensor, "match"], width: int) -> Float[np.ndarray, "match 2"]:
    numbers = pixels.cpu().numpy()
    return np.stack((numbers % width, numbers // width), axis=1) + 0.5
