"""CPU seconds of matching a symmetric pair by descriptors: ours against comparing everything with everything.

    python benchmarks/mast3r_matching.py
    python benchmarks/mast3r_matching.py --size 512 384 --kinds random smooth --threads 1

Both do the same walks (fast reciprocal nearest neighbours, from both images, in both decoder passes) and must give the
same correspondences, index for index. The plain search makes the scores of a block of queries and descriptors and looks
for the largest of each row; large blocks are slow because of the memory they need, small ones are the best it can do.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from anchorsfm.frontend.mast3r import nearest
from anchorsfm.frontend.mast3r.matching import (
    Correspondences,
    MatchingPass,
    PixelPairs,
    descriptor_pass,
    extract_correspondences,
    fast_reciprocal,
    first_of_each,
    grid_pixels,
)

CHANNELS = 24
PLAIN_BLOCKS = {"500 x all": (500, 10**9), "8192 x 8192": (8192, 8192), "4096 x 4096": (4096, 4096)}
"""Queries and descriptors that are compared at once."""


def random_maps(height: int, width: int, generator: torch.Generator, cell: int = 0) -> list[Tensor]:
    """Four unit descriptor maps (two passes of two images): unrelated if `cell` is 0, else two views of a smooth field.

    `cell` is the distance in pixels over which the field changes.
    """
    shape = (height, width, CHANNELS)
    if cell == 0:
        return [functional.normalize(torch.randn(shape, generator=generator), dim=-1) for _ in range(4)]
    coarse = torch.randn(1, CHANNELS, height // cell + 4, width // cell + 4, generator=generator)
    field = functional.interpolate(coarse, size=(height + 64, width + 64), mode="bicubic")[0].permute(1, 2, 0)
    shifts = ((0, 0), (20, 40), (1, 2), (21, 41))
    views = [field[y : y + height, x : x + width] + 0.05 * torch.randn(shape, generator=generator) for y, x in shifts]
    return [functional.normalize(view, dim=-1).contiguous() for view in views]


@dataclass(frozen=True)
class PlainSearch:
    """Compares every query with every descriptor, block by block."""

    source: Tensor
    target: Tensor
    block: tuple[int, int]

    def __call__(self, pixels: Tensor) -> Tensor:
        return torch.cat([self._nearest(self.source[part]) for part in pixels.split(self.block[0])])

    def _nearest(self, queries: Tensor) -> Tensor:
        best = torch.full((len(queries),), -torch.inf)
        winner = torch.zeros(len(queries), dtype=torch.int64)
        for start in range(0, len(self.target), self.block[1]):
            score, position = (queries @ self.target[start : start + self.block[1]].T).max(1)
            better = score > best
            best[better], winner[better] = score[better], position[better] + start
        return winner


def plain(maps: list[Tensor], block: tuple[int, int]) -> Correspondences:
    """The same walks; nothing is remembered between them."""
    found = []
    for one in plain_passes(maps, block):
        shapes = [(image.shape[0], image.shape[1]) for image in (one.confidence_1, one.confidence_2)]
        sizes = [shape[0] * shape[1] for shape in shapes]
        there = fast_reciprocal(one.forward, one.backward, grid_pixels(shapes[0], 8), second_size=sizes[1])
        back = fast_reciprocal(one.backward, one.forward, grid_pixels(shapes[1], 8), second_size=sizes[0])
        found += [(there.first, there.second), (back.second, back.first)]
    first, second = (torch.cat(part) for part in zip(*found, strict=True))
    kept = first_of_each(first, second, sizes[1])
    return Correspondences(pairs=PixelPairs(first=first[kept], second=second[kept]), confidence=torch.ones(len(kept)))


def plain_passes(maps: list[Tensor], block: tuple[int, int]) -> list[MatchingPass]:
    passes = []
    for first, second in (maps[:2], maps[2:]):
        ones = torch.ones(first.shape[:2])
        rows = [image.reshape(-1, CHANNELS) for image in (first, second)]
        passes.append(
            MatchingPass(
                forward=PlainSearch(rows[0], rows[1], block),
                backward=PlainSearch(rows[1], rows[0], block),
                confidence_1=ones,
                confidence_2=ones,
            )
        )
    return passes


def ours(maps: list[Tensor], eight_bits: bool) -> Correspondences:
    setattr(nearest, "_eight_bits_are_faster", lambda _device: eight_bits)  # noqa: B010
    ones = torch.ones(maps[0].shape[:2])
    return extract_correspondences([descriptor_pass(one, other, ones, ones) for one, other in (maps[:2], maps[2:])])


def timed(function: Callable[[], Correspondences], repeat: int) -> tuple[float, Correspondences]:
    """Least CPU seconds of all threads."""
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def same(one: Correspondences, two: Correspondences) -> bool:
    return torch.equal(one.pairs.first, two.pairs.first) and torch.equal(one.pairs.second, two.pairs.second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 384), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--kinds", nargs="+", default=["random", "smooth8", "smooth32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.size[0]}x{options.size[1]}, {options.threads} threads, torch {torch.__version__}, CPU seconds")
    print("| descriptors | search | CPU s | times less | pairs | same pairs |\n|---|---|---|---|---|---|")
    for kind in options.kinds:
        cell = int(kind.removeprefix("smooth") or 16) if kind.startswith("smooth") else 0
        maps = random_maps(options.size[1], options.size[0], torch.Generator().manual_seed(options.seed), cell)
        searches: dict[str, Callable[[], Correspondences]] = {
            **{f"plain, {name}": partial(plain, maps, block) for name, block in PLAIN_BLOCKS.items()},
            "ours, float32": partial(ours, maps, False),
            "ours, 8 bits": partial(ours, maps, True),
        }
        reference = None
        for name, search in searches.items():
            seconds, found = timed(search, options.repeat)
            reference = reference or (seconds, found)
            row = (kind, name, f"{seconds:.2f}", f"{reference[0] / seconds:.1f}", str(len(found.pairs)))
            print("| " + " | ".join((*row, str(same(found, reference[1])))) + " |", flush=True)


if __name__ == "__main__":
    main()
