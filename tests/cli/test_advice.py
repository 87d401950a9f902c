"""The stage that took longest, and the option that shortens it."""

import pytest

from anchorsfm.cli import advice as advice_module
from anchorsfm.cli.advice import advice, wider_search
from anchorsfm.cli.commands import COMMANDS
from anchorsfm.cli.options import names_of
from anchorsfm.io.clock import StageTiming
from anchorsfm.run.stages import Stage
from anchorsfm.scene.pairs import PairSearch


def timing(stage: str, wall_s: float) -> StageTiming:
    return StageTiming(stage=stage, wall_s=float(wall_s), cpu_s=float(wall_s), peak_memory_mib=1.0)


def test_the_slowest_stage_is_named_with_the_way_to_shorten_it():
    said = advice([timing("images", 1), timing("dense depth", 75), timing("alignment", 24)])
    assert said is not None and said.startswith("75% of the time went into dense depth") and "--no-dense" in said


def test_short_runs_get_none():
    assert advice([timing("dense depth", 12)]) is None
    assert advice([]) is None
    assert advice([timing("something new", 1000)]) is None


def test_models_of_one_run_that_a_wider_search_may_join_are_offered():
    search = PairSearch(tried=600, verified=300, rounds=3)
    assert wider_search(1, 50, search) is None and wider_search(2, 20, None) is None
    assert wider_search(2, 35, PairSearch(tried=595, verified=1, rounds=9)) is None
    said = wider_search(2, 50, search)
    assert said is not None and said.startswith("the 2 models") and "625 pairs" in said
    options = {word.strip(",.") for word in said.split() if word.startswith("--")}
    assert options <= names_of(COMMANDS["reconstruct"]).keys()


@pytest.mark.parametrize("text", advice_module._SHORTENED_BY.values())
def test_the_options_exist(text: str):
    named = [word.strip(",.") for word in text.split() if word.startswith("--")]
    assert named and set(named) <= names_of(COMMANDS["reconstruct"]).keys()


def test_the_stages_exist():
    assert set(advice_module._SHORTENED_BY) <= {str(stage) for stage in Stage}
