"""Verification of matches and their reduction to keypoints."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from anchorsfm.scene.errors import InputError
from anchorsfm.synthetic import SceneConfig, make_scene
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import SparsifyConfig
from anchorsfm.tracks.sparsify import PairGeometry, _suppressors, sparsify
from coarse_scene import coarse_matches, dense_matches, errors_against_reference, see, surface_points
from point_scene import make_point_scene

PIXEL_PX = 4.0
FIELDS = ("image_i", "image_j", "xy_i", "xy_j", "confidence")


@pytest.fixture(scope="module")
def scene():
    return make_scene(SceneConfig(num_images=5, size_wh=(2048, 1536), arc_deg=40.0, seed=2))


@pytest.fixture(scope="module")
def dense(scene) -> KeypointMatches:
    return dense_matches(scene, pixel_px=PIXEL_PX)


def run(matches, scene, config=None, **options):
    count = scene.num_images
    size_wh = np.tile(np.array(scene.config.size_wh), (count, 1))
    return sparsify(matches, config or SparsifyConfig(), pixel_px=np.full(count, PIXEL_PX), size_wh=size_wh, **options)


def keypoints(matches: KeypointMatches, image: int) -> np.ndarray:
    ends = [matches.xy_i[matches.image_i == image], matches.xy_j[matches.image_j == image]]
    return np.unique(np.concatenate(ends), axis=0)


def match_errors_px(scene, matches: KeypointMatches) -> np.ndarray:
    """How far match ends are from each other on the same surface, seen in image j."""
    out = np.zeros(len(matches.image_i))
    for i, j in np.unique(np.column_stack([matches.image_i, matches.image_j]), axis=0):
        here = (matches.image_i == i) & (matches.image_j == j)
        xy, _ = see(scene, int(j), surface_points(scene, int(i), matches.xy_i[here]))
        out[here] = np.linalg.norm(xy - matches.xy_j[here], axis=1)
    return out


def test_dense_matches_become_shared_keypoints(scene, dense):
    result = run(dense, scene)
    kept = result.matches
    before, after = build_tracks(dense, 5), build_tracks(kept, 5)
    assert np.bincount(before.obs_point).mean() < 2.3
    assert np.bincount(after.obs_point).mean() > 2.7
    assert after.num_points > 1500
    for image in range(5):
        xy = keypoints(kept, image) / PIXEL_PX
        assert len(cKDTree(xy).query_pairs(3.999)) == 0
        assert set(map(tuple, keypoints(kept, image))) <= set(map(tuple, keypoints(dense, image)))
    for i, j in combinations(range(5), 2):
        here = (kept.image_i == i) & (kept.image_j == j)
        assert len(np.unique(kept.xy_i[here], axis=0)) == len(np.unique(kept.xy_j[here], axis=0)) == here.sum()
    error = match_errors_px(scene, kept) / PIXEL_PX
    assert np.median(error) < 1.2
    assert (error > 4).mean() < 0.5 * (match_errors_px(scene, dense) / PIXEL_PX > 4).mean()
    longest = np.bincount(after.obs_point)
    reference = np.searchsorted(after.obs_point, np.arange(len(longest)))
    drift, visible = errors_against_reference(scene, after, reference)
    assert np.percentile(drift[visible], 90) < 3 * PIXEL_PX
    report = result.pairs
    assert len(report.index) == 10 and report.given.sum() == len(dense.image_i)
    assert (report.given > report.confident).all() and (report.confident >= report.verified).all()
    assert (report.verified >= report.kept).all() and report.kept.sum() == len(kept.image_i)
    assert (report.geometry == PairGeometry.VERIFIED).all()


def test_result_does_not_depend_on_the_run_and_repeats_nothing(scene, dense):
    first, again = run(dense, scene).matches, run(dense, scene).matches
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in ("xy_i", "xy_j", "confidence"))
    # what is already sparse stays as it is
    config = SparsifyConfig(confidence_percentile=0.0)
    twice = run(first, scene, config, are_verified=True).matches
    assert np.array_equal(twice.xy_i, first.xy_i) and np.array_equal(twice.xy_j, first.xy_j)


def test_confidence_and_geometry(scene):
    matches = coarse_matches(scene, pixel_px=PIXEL_PX, points_per_image=300, outliers=0.3)
    matches = replace(matches, confidence=np.maximum(matches.confidence, 1.5))
    wrong = match_errors_px(scene, matches) > 8 * PIXEL_PX
    config = SparsifyConfig(confidence_percentile=0.0)
    for focal_px in (None, np.full(5, scene.focal_px[0])):
        result = run(matches, scene, config, are_keypoints=True, focal_px=focal_px)
        assert result.pairs.verified.sum() > 0.9 * (~wrong).sum()
        after = match_errors_px(scene, result.matches) > 8 * PIXEL_PX
        assert after.mean() < 0.25 * wrong.mean()
    trusted = run(matches, scene, config, are_keypoints=True, are_verified=True)
    assert np.array_equal(trusted.matches.xy_j, matches.xy_j)
    assert (trusted.pairs.geometry == PairGeometry.TRUSTED).all()
    low = run(replace(matches, confidence=np.full(len(wrong), 1.4)), scene, are_keypoints=True, are_verified=True)
    assert len(low.matches.image_i) == 0 and (low.pairs.geometry == PairGeometry.REJECTED).all()


def test_equal_confidences_are_all_kept(scene):
    matches = coarse_matches(scene, pixel_px=PIXEL_PX, points_per_image=100, outliers=0.0)
    equal = replace(matches, confidence=np.full(len(matches.image_i), 10.0))
    assert (run(equal, scene).pairs.confident == run(equal, scene).pairs.given).all()
    spread = run(matches, scene).pairs
    assert np.allclose(spread.confident / spread.given, 0.8, atol=0.03)


def planar_pair(rng, turn_only: bool) -> KeypointMatches:
    """200 right matches of a plane (or a camera that turned) and 60 wrong ones."""
    xy = rng.uniform(0, [2048, 1536], (260, 2))
    h = np.array([[0.95, 0.05, 60], [-0.04, 1.02, -30], [2e-5, -1e-5, 1]])
    if turn_only:
        k = np.array([[1800, 0, 1024], [0, 1800, 768], [0, 0, 1.0]])
        a = np.deg2rad(8)
        h = k @ np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]) @ np.linalg.inv(k)
    moved = np.column_stack([xy, np.ones(260)]) @ h.T
    other = moved[:, :2] / moved[:, 2:] + rng.normal(0, 1.0, (260, 2))
    other[200:] = rng.uniform(0, [2048, 1536], (60, 2))
    return KeypointMatches(image_i=np.zeros(260, np.int64), image_j=np.ones(260, np.int64), xy_i=xy, xy_j=other,
                           confidence=np.full(260, 10.0))  # fmt: skip


@pytest.mark.parametrize("turn_only", [False, True])
def test_degenerate_pairs_are_kept_and_marked(turn_only):
    matches = planar_pair(np.random.default_rng(1), turn_only)
    result = sparsify(matches, SparsifyConfig(), pixel_px=np.full(2, PIXEL_PX), are_keypoints=True,
                      size_wh=np.array([[2048, 1536]] * 2))  # fmt: skip
    assert result.pairs.geometry.tolist() == [PairGeometry.DEGENERATE]
    right = np.isin(result.matches.xy_i[:, 0], matches.xy_i[:200, 0])
    assert right.sum() > 190 and (~right).sum() <= 2


def test_pairs_of_noise_are_rejected():
    rng = np.random.default_rng(0)
    matches = KeypointMatches(image_i=np.zeros(40, np.int64), image_j=np.ones(40, np.int64),
                              xy_i=rng.uniform(0, 1000, (40, 2)), xy_j=rng.uniform(0, 1000, (40, 2)),
                              confidence=np.full(40, 10.0))  # fmt: skip
    options = {"pixel_px": np.ones(2), "size_wh": np.array([[1000, 1000]] * 2)}
    result = sparsify(matches, SparsifyConfig(), **options)
    assert result.pairs.geometry.tolist() == [PairGeometry.REJECTED] and len(result.matches.image_i) == 0
    nothing = KeypointMatches(**{name: getattr(matches, name)[:0] for name in FIELDS})
    empty = sparsify(nothing, SparsifyConfig(), **options)
    assert len(empty.matches.image_i) == 0 and len(empty.pairs.index) == 0
    few = KeypointMatches(**{name: getattr(matches, name)[:5] for name in FIELDS})
    assert sparsify(few, SparsifyConfig(), **options).pairs.verified.tolist() == [0]


def test_cap_spreads_keypoints_and_leaves_coordinates():
    made = make_point_scene(num_views=4, num_points=900, noise_px=0.3).matches
    size_wh = np.array([[1600, 1200]] * 4)
    options = {"pixel_px": np.ones(4), "size_wh": size_wh, "are_keypoints": True, "are_verified": True}
    assert np.array_equal(sparsify(made, SparsifyConfig(), **options).matches.xy_i, made.xy_i)
    left = made.xy_i[:, 0] < 800
    strong = replace(made, confidence=np.where(left, 100.0, 10.0))  # all of the strongest on one side
    kept = sparsify(strong, SparsifyConfig(max_detected_keypoints=200), **options).matches
    for image in range(4):
        xy = keypoints(kept, image)
        assert 100 < len(xy) <= 200
        assert set(map(tuple, xy)) <= set(map(tuple, keypoints(made, image)))
        share = (keypoints(made, image)[:, 0] >= 800).mean()
        assert (xy[:, 0] >= 800).mean() > 0.6 * share


def test_suppression_is_the_greedy_one():
    rng = np.random.default_rng(3)
    xy, priority = rng.uniform(0, 60, (400, 2)), rng.integers(0, 20, 400).astype(float)
    kept = []
    for k in np.lexsort((np.arange(400), -priority)):
        if all(np.hypot(*(xy[k] - xy[other])) > 4 for other in kept):
            kept.append(k)
    found = _suppressors(xy, priority, 4.0)
    assert sorted(kept) == np.unique(found).tolist()
    assert (found[kept] == kept).all()
    nearest = np.array(sorted(kept))[cKDTree(xy[sorted(kept)]).query(xy)[1]]
    assert np.array_equal(found, nearest)
    assert np.hypot(*(xy - xy[found]).T).max() <= 4


# --------------------------------------------------------------------------------------------- matches of one's own


OWN = {"pixel_px": np.ones(5), "size_wh": np.array([[1600, 1200]] * 5), "are_keypoints": True}


def own_matches():
    return make_point_scene(num_views=5, num_points=300, noise_px=0.3).matches


def test_probabilities_are_taken_as_such():
    made = own_matches()
    chance = np.random.default_rng(0).uniform(0, 1, len(made.confidence))
    kept = sparsify(replace(made, confidence=chance), SparsifyConfig(), **OWN, scores="probability").matches
    likely = chance >= 0.5 / 9
    assert len(kept.confidence) > 0.95 * likely.sum() and kept.confidence.min() >= 1.5
    assert kept.confidence.max() <= 10 and likely.mean() < 1
    with pytest.raises(InputError, match=r'confidences are 0\.\d+ to 0\.\d+: .*scores="probability"'):
        sparsify(replace(made, confidence=chance), SparsifyConfig(), **OWN)
    nothing = sparsify(replace(made, confidence=chance), SparsifyConfig(), **OWN, scores="confidence")
    assert len(nothing.matches.confidence) == 0, "a front end may say that it knows nothing"
    with pytest.raises(InputError, match=r"said to be probabilities, but one of them is 1\.5"):
        sparsify(replace(made, confidence=np.full(len(chance), 1.5)), SparsifyConfig(), **OWN, scores="probability")


def test_coordinates_that_are_no_numbers_are_left_out_and_counted():
    made = own_matches()
    bad = np.random.default_rng(1).uniform(size=len(made.confidence)) < 0.02
    spoilt = replace(made, xy_i=np.where(bad[:, None], np.nan, made.xy_i))
    clean = sparsify(made.select(~bad), SparsifyConfig(), **OWN)
    result = sparsify(spoilt, SparsifyConfig(), **OWN)
    assert result.num_unusable == bad.sum() > 0 and clean.num_unusable == 0
    assert all(np.array_equal(getattr(result.matches, n), getattr(clean.matches, n)) for n in FIELDS)
    assert np.array_equal(build_tracks(spoilt, 5).obs_xy, build_tracks(made.select(~bad), 5).obs_xy)
    other = replace(made, confidence=np.where(bad, np.inf, made.confidence))
    assert sparsify(other, SparsifyConfig(), **OWN).num_unusable == bad.sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: replace(m, image_j=m.image_j + 4), "names image [5-8], but there are 5 images"),
        (lambda m: replace(m, image_i=m.image_i - 1), "names image -1"),
        (lambda m: replace(m, image_j=m.image_i), r"match 0 joins image \d with itself"),
    ],
)
def test_matches_that_make_no_sense_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        sparsify(change(own_matches()), SparsifyConfig(), **OWN)
