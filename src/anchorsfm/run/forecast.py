"""How long a run will still take: one figure for all of it, from its first stage on.

A plan lists what a run of these settings does with this many photographs, and what each step costs on a laptop. What
has been done so far says how fast this machine is; what was read from the cache says nothing about it. How many pairs
there are becomes exact when a step that works on them begins.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from anchorsfm.dense.config import MAX_IMAGES_BY_DEFAULT
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.progress import Advance, PassedOn, Progress

_FIRST_STEP = "reading photographs"
_IN_TURNS = ("matching pairs", "verifying pairs")
"""Steps that are gone through several times, while pairs are looked for in rounds."""
_FROM_CACHE = 0.1
"""What takes less than this share of what it should was read from the cache."""
_PIECE_S = 0.5
"""A step is held against the plan in pieces that take this long."""
_BEFORE_FIRST_S = 5.0
_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage of the progress."""

    units: float
    """How many photographs or pairs it works on, as far as known beforehand."""
    unit_s: float
    """What each of them costs."""
    counts_units: bool = True
    """Whether the stage counts them too, so that it says how many there are; others count iterations or rounds."""

    @property
    def all_s(self) -> float:
        return self.units * self.unit_s


def plan(config: PipelineConfig, num_images: int, pixels: float | None = None) -> dict[str, Step]:
    """The steps of a run by their names in the progress, in order.

    `pixels`: of an average photograph, in the size in which features are looked for. None: those of the largest one
    that may be, three by four.
    """
    count, complete = float(num_images), num_images * (num_images - 1) / 2
    largest = 0.75 * config.max_image_size**2
    area, workers = (largest if pixels is None else pixels) / (0.75 * 1024**2), config.classical.workers.resolve()
    dense_area = (config.classical.dense.size / 512) ** 2
    makes_cloud = num_images <= MAX_IMAGES_BY_DEFAULT if config.dense is None else config.dense
    aligns = config.mapper == "align"
    pairs = min(complete, 16 * count)
    depth_pairs = min(complete, config.classical.dense.pairs_per_image * count / 2)
    steps = {
        _FIRST_STEP: Step(units=count, unit_s=0.02),
        "finding keypoints": Step(units=count, unit_s=0.6 * area / workers),
        "matching pairs": Step(units=pairs, unit_s=0.04 * area / workers),
        "verifying pairs": Step(units=pairs, unit_s=0.015 / workers),
        "estimating relative poses": Step(units=pairs, unit_s=0.01 / workers),
    }
    if aligns or makes_cloud:
        steps["dense depth of pairs"] = Step(units=depth_pairs, unit_s=dense_area / workers)
    if aligns:
        steps["coarse alignment"] = Step(units=count, unit_s=0.04, counts_units=False)
        steps["fine alignment"] = Step(units=count, unit_s=0.12, counts_units=False)
    else:
        steps["growing models"] = Step(units=count, unit_s=0.5)
    if config.bundle_adjustment:
        steps["adjusting"] = Step(units=count, unit_s=area**0.5, counts_units=False)
    if makes_cloud:
        steps["matching depth"] = Step(units=count, unit_s=0.85 * dense_area / workers)
        steps["fusing depth"] = Step(units=count, unit_s=0.3 * dense_area)
    steps["report"] = Step(units=count, unit_s=0.05)
    return steps


class Forecast(PassedOn):
    """Says now and then how long the run will still take."""

    def __init__(self, config: PipelineConfig, inner: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(inner)
        self._config = config
        self._clock = clock
        self._plan: dict[str, Step] = {}
        self._left_s: dict[str, float] = {}
        """What the plan says of steps that have not ended."""
        self._planned_s = self._took_s = 0.0
        """Of what has been done and was not read from the cache."""
        self._began = self._said = clock()

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        slowness = self._took_s / self._planned_s if self._planned_s > 0 else 1.0
        return sum(self._left_s.values()) * slowness

    def know_sizes(self, size_wh: Int[np.ndarray, "image 2"]) -> None:
        """Plan with the sizes of the photographs: those that are small cost less in some steps."""
        scale = np.minimum(self._config.max_image_size / size_wh.max(axis=1), 1)
        steps = plan(self._config, len(size_wh), float((size_wh.prod(axis=1) * scale**2).mean()))
        self._left_s = {name: steps[name].all_s for name in self._left_s}
        self._plan = steps

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        if description == _FIRST_STEP and total:
            self._plan = plan(self._config, total)
            self._left_s = {name: step.all_s for name, step in self._plan.items()}
        name = description if description in self._plan else None
        with super().stage(description, total) as advance:
            yield advance if name is None or not total else self._counted(name, total, advance)
        if name is not None and name not in _IN_TURNS:
            self._left_s.pop(name, None)

    def _counted(self, name: str, total: int, advance: Advance) -> Advance:
        step, begun, pending = self._plan[name], self._clock(), 0
        all_s = total * step.unit_s if step.counts_units else step.all_s
        self._enter(name, all_s)

        def counted(steps: int) -> None:
            nonlocal begun, pending
            advance(steps)
            now, pending = self._clock(), pending + steps
            if now - begun >= _PIECE_S:
                self._learn(name, all_s * pending / total, now - begun)
                begun, pending = now, 0
            if now - self._said >= _EVERY_S and now - self._began >= _BEFORE_FIRST_S:
                self._said = now
                self.whole(self.left_s)

        return counted

    def _enter(self, name: str, all_s: float) -> None:
        names = list(self._plan)
        for earlier in names[: names.index(name)]:
            if name not in _IN_TURNS or earlier not in _IN_TURNS:
                self._left_s.pop(earlier, None)
        if name in self._left_s:
            self._left_s[name] = max(all_s, self._left_s[name]) if name in _IN_TURNS else all_s

    def _learn(self, name: str, planned_s: float, took_s: float) -> None:
        if name in self._left_s:
            self._left_s[name] = max(self._left_s[name] - planned_s, 0.0)
        if took_s >= _FROM_CACHE * planned_s:
            self._planned_s += planned_s
            self._took_s += took_s
