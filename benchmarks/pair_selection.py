"""Which pairs a search finds, beside all pairs and those of an order that may mean nothing.

    python benchmarks/pair_selection.py WORK FOLDER ...

Every FOLDER holds images/, and origin.json (name -> [scene, former name]) if it holds several scenes: pairs of two
scenes are then not looked at for the complete graph. WORK keeps features and matches, so that a second run is cheap.
"Good" pairs have at least 100 verified matches. An image with more than 25 of them cannot have all at 25 pairs an
image: `at 25` counts min(found, 25) over min(good, 25), summed over the images, `all` counts every good pair.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from anchorsfm.frontend.classical.config import WorkerConfig
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.pairing import make_pairs
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import chosen_frontend, make_run_pairs, pair_checker
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Advance, Progress

GOOD = 100
LIMIT = 25


class Cpu(Progress):
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        begun = time.process_time()
        yield lambda _count: None
        self.spent_s[description] = self.spent_s.get(description, 0.0) + time.process_time() - begun


def verified_counts(config: PipelineConfig, images: ImageSet, store: Store, pairs: np.ndarray) -> np.ndarray:
    """Verified matches of pairs, as a symmetric matrix; 0 where there is no pair."""
    look = pair_checker(config, images, chosen_frontend(config), store, Progress()).checker()
    matrix = np.zeros((images.num_images,) * 2, np.int64)
    matrix[pairs[:, 0], pairs[:, 1]] = look(pairs)
    return matrix + matrix.T


def line(name: str, pairs: np.ndarray, tried: int, counts: np.ndarray, rest: str = "") -> str:
    """One row of the table."""
    num_images, i, j = len(counts), *pairs.T
    chosen = np.zeros_like(counts, dtype=bool)
    chosen[i, j] = chosen[j, i] = True
    good, found = counts >= GOOD, (counts >= GOOD) & chosen
    at_limit = np.minimum(found.sum(1), LIMIT).sum() / max(np.minimum(good.sum(1), LIMIT).sum(), 1)
    complete = num_images * (num_images - 1) // 2
    return (
        f"| {name} | {tried} ({100 * tried / complete:.0f} %) | {len(i)} ({2 * len(i) / num_images:.1f}) "
        f"| {at_limit:.3f} | {found.sum() / max(good.sum(), 1):.3f} of {good.sum() // 2} | {rest} |"
    )


def main(work: Path, folders: list[Path]) -> None:
    config = PipelineConfig()
    config = replace(config, classical=replace(config.classical, workers=WorkerConfig(num_workers=1)))
    store = Store(work)
    print("| | tried | pairs (an image) | good at 25 | all good | CPU s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for folder in folders:
        images = load_image_set(folder / "images")
        origin = folder / "origin.json"
        names = json.loads(origin.read_text()) if origin.exists() else {name: [""] for name in images.names}
        scene = np.array([names[name][0] for name in images.names])
        everything = make_pairs(images.num_images, "complete").index
        with single_threaded_libraries():
            own = everything[scene[everything[:, 0]] == scene[everything[:, 1]]]
            counts = verified_counts(config, images, store, own)
        print(line(f"{folder.name}, complete", everything, len(everything), counts))
        old = make_pairs(images.num_images, "auto").index
        print(line(f"{folder.name}, order and chance", old, len(old), counts))
        if images.num_images <= 30:
            continue
        cpu, begun = Cpu(), time.process_time()
        found = make_run_pairs(config, images, chosen_frontend(config), store, cpu)
        total_s = time.process_time() - begun
        matching_s = sum(cpu.spent_s.get(name, 0.0) for name in ("matching pairs", "verifying pairs"))
        i, j = found.pairs.index.T
        rest = f"{total_s - matching_s:.1f} beside matching; {(scene[i] != scene[j]).sum()} pairs of two scenes"
        assert found.search is not None
        rest += f"; {found.search.verified} verified in {found.search.rounds} rounds"
        print(line(f"{folder.name}, search", found.pairs.index, found.search.tried, counts, rest), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
