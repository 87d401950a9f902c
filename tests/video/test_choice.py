"""Which frames are chosen, on tracks whose answer is known."""

import numpy as np
import pytest

from anchorsfm.video.choice import SHARP, WINDOW_S, Choice, Fate, choose
from anchorsfm.video.config import VideoConfig
from anchorsfm.video.measure import FrameTrack

RATE = 30


def track(way: np.ndarray, sharpness: np.ndarray | None = None, time_s: np.ndarray | None = None) -> FrameTrack:
    count = len(way)
    return FrameTrack(
        number=np.arange(count),
        time_s=np.arange(count) / RATE if time_s is None else time_s,
        sharpness=np.ones(count) if sharpness is None else sharpness,
        way=way.astype(float),
    )


def require_no_needless_blur(choice: Choice, given: FrameTrack) -> None:
    """No chosen frame has a sharp one within the window while it is blurred itself."""
    for row in choice.rows:
        near = np.abs(given.time_s - given.time_s[row]) <= WINDOW_S
        assert given.sharpness[row] >= SHARP * given.sharpness[near].max()


def test_an_even_way_gives_even_frames() -> None:
    choice = choose(track(np.arange(301) * 0.004), VideoConfig(step=0.1))
    assert choice.rows.tolist() == list(range(0, 301, 25))
    assert choice.step == pytest.approx(0.1) and choice.count(Fate.BETWEEN) == 301 - 13


def test_frames_follow_the_view_and_not_the_clock() -> None:
    """Ten seconds without movement in the middle give one frame, and twice the speed gives twice the frames."""
    speed = np.concatenate([np.full(90, 0.004), np.zeros(300), np.full(90, 0.008)])
    way = np.concatenate([[0], np.cumsum(speed)])
    choice = choose(track(way), VideoConfig(step=0.08))
    still = (choice.rows >= 90) & (choice.rows <= 390)
    assert still.sum() <= 2
    assert np.diff(way[choice.rows]).max() < 0.13
    before, after = (choice.rows < 90).sum(), (choice.rows > 390).sum()
    assert after == pytest.approx(2 * before, abs=1)
    assert choice.count(Fate.STILL) == pytest.approx(300 - RATE, abs=8)


def test_the_sharpest_of_a_still_moment_is_taken() -> None:
    way = np.concatenate([np.linspace(0, 0.4, 60), np.full(120, 0.4), np.linspace(0.4, 0.8, 60)])
    sharpness = np.ones(240)
    sharpness[137] = 1.3
    assert 137 in choose(track(way, sharpness), VideoConfig(step=0.1)).rows


@pytest.mark.parametrize("seed", range(5))
def test_no_blurred_frame_where_a_sharp_one_is_near(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sharpness = np.where(rng.random(900) < 0.6, rng.uniform(0.2, 0.6, 900), rng.uniform(0.9, 1.1, 900))
    given = track(np.cumsum(rng.uniform(0, 0.02, 900)), sharpness)
    choice = choose(given, VideoConfig(step=0.1))
    require_no_needless_blur(choice, given)
    assert choice.count(Fate.BLURRED) == pytest.approx((sharpness < 0.7).sum(), abs=5)
    assert np.diff(given.way[choice.rows]).max() < 0.2


def test_blurred_frames_of_a_fast_pan_are_taken_only_where_they_join() -> None:
    """Half a second of blur in which the view moves by its own width: a few frames, the sharpest of their time."""
    way = np.concatenate([np.linspace(0, 0.5, 100), np.linspace(0.56, 1.5, 16), np.linspace(1.505, 2, 100)])
    sharpness = np.ones(216)
    sharpness[100:116] = 0.47
    given = track(way, sharpness)
    choice = choose(given, VideoConfig(step=0.08))
    in_pan = [row for row in choice.rows if 100 <= row < 116]
    assert 0 < len(in_pan) <= 5
    require_no_needless_blur(choice, given)
    slow = track(np.concatenate([way[:100], np.full(16, 0.5) + np.linspace(0, 0.15, 16), way[116:] - 0.85]), sharpness)
    assert not [row for row in choose(slow, VideoConfig(step=0.08)).rows if 100 <= row < 116]
    sharpness[100:116] = 0.3  # nothing is found in them again
    useless = choose(track(way, sharpness), VideoConfig(step=0.08))
    assert not [row for row in useless.rows if 100 <= row < 116] and useless.count(Fate.BLURRED) == 16


def test_the_number_of_frames_is_bounded() -> None:
    way = np.arange(3000) * 0.01
    choice = choose(track(way), VideoConfig(frames=50, step=0.08))
    assert len(choice.rows) == 50 and choice.step == pytest.approx(way[-1] / 49)
    assert np.ptp(np.diff(choice.rows)) <= 1


def test_a_rate_takes_still_moments_too() -> None:
    sharpness = np.ones(301)
    sharpness[::15] = 0.1
    choice = choose(track(np.zeros(301), sharpness), VideoConfig(fps=2))
    assert len(choice.rows) == 21 and (sharpness[choice.rows] == 1).all()
    assert np.abs(np.diff(choice.rows) - 15).max() <= 2
    assert len(choose(track(np.zeros(301)), VideoConfig(fps=2, frames=6)).rows) == 6


def test_a_rate_is_kept_where_nothing_moves_or_is_sharp() -> None:
    """A blurred moment that movement would leave out, and frames that are a little sharper away from every place."""
    time_s = np.arange(601) / RATE
    sharpness = np.where(np.abs(time_s % 2 - 1) > 0.7, 0.8, 1.0)
    sharpness[(time_s > 9.5) & (time_s < 10.5)] *= 0.6
    choice = choose(track(np.zeros(601), sharpness), VideoConfig(fps=0.5))
    assert np.abs(time_s[choice.rows] - 2 * np.arange(11)).max() <= WINDOW_S


def test_times_need_not_be_even() -> None:
    """Sharp frames far away in time are no reason to leave out a blurred one, however few frames lie between."""
    time_s = np.array([0, 0.03, 0.06, 1.0, 2.0, 2.03, 2.06])
    given = track(np.array([0, 0.05, 0.1, 0.5, 0.9, 0.95, 1.0]), np.array([1, 1, 1, 0.6, 1, 1, 1.0]), time_s)
    assert 3 in choose(given, VideoConfig(step=0.1)).rows


def test_no_view_is_taken_twice_where_the_view_jumps() -> None:
    """As in a slide show: every place between two views is as near to one as to the other."""
    way = np.repeat(np.arange(6) * 0.25, 20)
    choice = choose(track(way), VideoConfig(step=0.06))
    assert way[choice.rows].tolist() == (np.arange(6) * 0.25).tolist()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_videos(count: int) -> None:
    for way in (np.zeros(count), np.linspace(0, 1, count)):
        rows = choose(track(way), VideoConfig()).rows
        assert 1 <= len(rows) <= count and rows[0] == 0


def test_a_view_that_sways_gives_frames_of_its_progress() -> None:
    """Back and forth by more than a step, forward on the whole."""
    time_s = np.arange(600) / RATE
    way = 0.1 * time_s + 0.12 * np.sin(4 * time_s)
    rows = choose(track(way), VideoConfig(step=0.08)).rows
    assert len(rows) == pytest.approx(np.ptp(way) / 0.08, abs=3)
    assert (np.diff(np.maximum.accumulate(way)[rows]) > 0.01).all()


def test_a_trembling_measure_does_no_harm() -> None:
    rng = np.random.default_rng(0)
    way = np.linspace(0, 2, 400) + rng.normal(0, 0.003, 400)
    choice = choose(track(way), VideoConfig(step=0.1))
    assert len(choice.rows) == pytest.approx(21, abs=1)
