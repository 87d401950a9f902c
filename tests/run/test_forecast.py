"""The time that a run will still take."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.forecast import Forecast, plan
from anchorsfm.scene.progress import Progress


class Machine(Progress):
    """A clock that runs as fast as the machine is, and what it is told."""

    def __init__(self, slowness: float) -> None:
        self.slowness = slowness
        self.now = 0.0
        self.told: list[tuple[float, float]] = []

    def clock(self) -> float:
        return self.now

    def whole(self, left_s: float) -> None:
        self.told.append((self.now, left_s))


def run(config: PipelineConfig, num_images: int, machine: Machine, *, cached: tuple[str, ...] = ()) -> list[float]:
    """Go through the plan's steps as a run does; the ratios of what was told to what it took, by time."""
    forecast = Forecast(config, machine, machine.clock)
    for name, step in plan(config, num_images).items():
        total = int(step.units) if step.counts_units else 50
        with forecast.stage(name, total) as advance:
            for _ in range(total):
                machine.now += 0.0 if name in cached else machine.slowness * step.all_s / total
                advance(1)
    return [left / (machine.now - when) for when, left in machine.told if machine.now - when > 0.05 * machine.now]


@pytest.mark.parametrize("slowness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("config", [PipelineConfig(), PipelineConfig(mapper="tracks", dense=False)])
def test_a_plan_that_fits_tells_the_time_whatever_the_machine(config: PipelineConfig, slowness: float):
    ratios = run(config, 80, Machine(slowness))
    assert len(ratios) > 10
    assert min(ratios) > 0.7 and max(ratios) < 1.4


def test_small_photographs_are_not_taken_for_a_fast_machine():
    """Their keypoints cost less, their dense depth does not."""
    machine, config = Machine(1.0), PipelineConfig()
    forecast = Forecast(config, machine, machine.clock)
    with forecast.stage("reading photographs", 80) as advance:
        advance(80)
    forecast.know_sizes(np.tile([[480, 640]], (80, 1)))
    steps = plan(config, 80, 640.0 * 480)
    assert steps["finding keypoints"].all_s < 0.5 * plan(config, 80)["finding keypoints"].all_s
    for name in list(steps)[1:4]:
        total = int(steps[name].units)
        with forecast.stage(name, total) as advance:
            for _ in range(total):
                machine.now += steps[name].unit_s
                advance(1)
    left = sum(step.all_s for step in list(steps.values())[4:])
    assert forecast.left_s == pytest.approx(left, rel=0.05)
    forecast.know_sizes(np.tile([[4000, 3000]], (80, 1)))
    assert forecast.left_s > left


def test_what_the_cache_gives_says_nothing_about_the_machine():
    ratios = run(PipelineConfig(), 80, Machine(3.0), cached=("finding keypoints", "matching pairs"))
    late = ratios[len(ratios) // 3 :]
    assert min(late) > 0.6 and max(late) < 1.6


def test_pairs_that_are_looked_for_in_rounds_count_once():
    machine = Machine(1.0)
    forecast = Forecast(PipelineConfig(), machine, machine.clock)
    with forecast.stage("reading photographs", 50):
        pass
    before, steps = forecast.left_s, plan(PipelineConfig(), 50)
    for _ in range(3):
        for name in ("matching pairs", "verifying pairs"):
            with forecast.stage(name, 300) as advance:
                for _ in range(300):
                    machine.now += steps[name].unit_s
                    advance(1)
    with forecast.stage("dense depth of pairs", 50):
        over = sum(steps[name].all_s for name in list(steps)[: list(steps).index("dense depth of pairs")])
        assert forecast.left_s == pytest.approx(before - over, rel=0.05)


def test_steps_without_a_plan_are_passed_on():
    machine = Machine(1.0)
    forecast = Forecast(replace(PipelineConfig()), machine, machine.clock)
    with forecast.stage("something else", 3) as advance:
        advance(3)
    assert forecast.left_s == 0 and machine.told == []
