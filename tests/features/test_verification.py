"""Verified matches are made once, whoever asks for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from anchorsfm.features.config import FeatureConfig, MatchingConfig
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.features.verification import VerificationStore, Verified, verify
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.geometry.centred import centred
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.scene.progress import SILENT


def _verification(folder: Path, store: Store, config: MatchingConfig) -> VerificationStore:
    features = FeatureStore(
        images=load_image_set(folder), detector=make_detector(FeatureConfig(max_image_size=1024)), store=store
    )
    return VerificationStore(matches=MatchStore(features=features, matcher=make_matcher(config)), config=config)


def test_the_front_end_finds_what_was_verified_before(rendered: Path, tmp_path: Path, monkeypatch) -> None:
    store, config = Store(tmp_path), MatchingConfig(seed=0)
    pairs = make_pairs(5, "swin-1-noncyclic")
    verification = _verification(rendered / "images", store, config)
    features = verification.matches.features
    xy = features.each(lambda f: f.xy, "finding keypoints", SILENT, 1)
    counts = []
    for i, j in pairs.index.tolist():
        keypoint = verification.matches.matches(i, j).keypoint
        points = [centred(features.images, k, xy[k])[keypoint[:, side]] for side, k in enumerate((i, j))]
        counts.append(len(verification.verified(i, j, lambda p=points, k=keypoint: verify(*p, k, config)).keypoint))
    assert min(counts) >= 30
    monkeypatch.setattr("anchorsfm.frontend.classical.two_view.verify", None)  # nothing is verified any more
    frontend = ClassicalFrontend(dense=DenseConfig(enabled=False))
    predictor = frontend.open(features.images, pairs, store, SILENT)
    assert len(predictor) == len(counts)


def test_keys_follow_settings_and_lens(rendered: Path) -> None:
    base = MatchingConfig(seed=0)
    nothing, bent = np.zeros((2, 2)), np.full((2, 2), -0.1)
    configs = [base, replace(base, min_inliers=20), replace(base, seed=1), replace(base, max_ratio=0.8)]
    keys = {
        _verification(rendered / "images", Store(None), config).key(0, 1, bend)
        for config in configs
        for bend in (nothing, bent)
    }
    assert len(keys) == 8


def test_a_store_without_folder_makes_them_each_time(rendered: Path) -> None:
    made = []

    def make() -> Verified:
        made.append(1)
        return Verified(keypoint=np.zeros((0, 2), np.int32), fundamental=np.zeros((3, 3)))

    verification = _verification(rendered / "images", Store(None), MatchingConfig())
    assert all(len(verification.verified(0, 1, make).keypoint) == 0 for _ in range(2)) and len(made) == 2
