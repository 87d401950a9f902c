"""Keypoint networks and LightGlue, with the weights that their authors released."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import UInt8

from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig, LearnedDetectorName, NetworkConfig
from anchorsfm.features.learned.detector import DESCRIPTOR_WIDTH
from anchorsfm.features.learned.lightglue import LightGlueMatcher
from anchorsfm.features.learned.networks import load_detector
from anchorsfm.features.learned.releases import DETECTOR_WEIGHTS
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.mutual import MutualMatcher
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig, WorkerConfig
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.pairing.retrieval import image_similarity
from anchorsfm.scene.errors import InputError, SettingError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT

NAMES: tuple[LearnedDetectorName, ...] = ("aliked", "disk", "xfeat")


def checkered(size_wh: tuple[int, int], shift_px: tuple[float, float]) -> UInt8[np.ndarray, "h w 3"]:
    """Random squares, moved by fractions of a pixel."""
    rng = np.random.default_rng(0)
    large = np.full((size_wh[1] * 4, size_wh[0] * 4, 3), 128, np.uint8)
    for _ in range(160):
        x, y = rng.integers(0, large.shape[1]), rng.integers(0, large.shape[0])
        side = int(rng.integers(24, 120))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        corner = (round(x + 4 * shift_px[0]), round(y + 4 * shift_px[1]))
        cv2.rectangle(large, corner, (corner[0] + side, corner[1] + side), colour, -1)
    return np.asarray(cv2.resize(large, size_wh, interpolation=cv2.INTER_AREA))


def write(folder: Path, **pictures: UInt8[np.ndarray, "h w 3"]) -> ImageSet:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    return load_image_set(folder)


def networks(folder: Path) -> NetworkConfig:
    return NetworkConfig(weights=folder)


# ----------------------------------------------------------------------------------------------------------- detectors


@pytest.mark.parametrize("name", NAMES)
def test_keypoints_are_in_original_colmap_pixels(
    name: LearnedDetectorName, learned_weights: Path, tmp_path: Path
) -> None:
    """The same picture in two sizes, and moved: keypoints follow, without the half pixels of other conventions."""
    small = checkered((320, 224), (0, 0))
    images = write(
        tmp_path / "p",
        a=small,
        b=cv2.resize(small, (960, 672), interpolation=cv2.INTER_NEAREST),
        c=checkered((320, 224), (5, 3)),
    )
    detector = make_detector(FeatureConfig(detector=name, max_image_size=320), networks(learned_weights))
    plain, large, moved = (detector.detect(images, k) for k in range(3))
    assert plain.size_wh.tolist() == [320, 224] and large.size_wh.tolist() == [960, 672]
    assert len(plain.xy) > 100 and (np.diff(plain.score) <= 0).all()
    assert plain.descriptor.shape == (len(plain.xy), DESCRIPTOR_WIDTH[name])
    assert np.allclose(np.linalg.norm(plain.descriptor, axis=1), 1, atol=1e-4)
    assert len(np.unique(plain.xy, axis=0)) == len(plain.xy)
    matcher = MutualMatcher()
    for other, factor, shift in ((large, 3, (0, 0)), (moved, 1, (5, 3))):
        found = matcher.match(matcher.prepare(plain), matcher.prepare(other))
        away = other.xy[found.keypoint[:, 1]] / factor - shift - plain.xy[found.keypoint[:, 0]]
        assert (np.linalg.norm(away, axis=1) < 1.5).mean() > (0.5 if name == "xfeat" else 0.7)
        assert np.abs(np.median(away, axis=0)).max() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_pictures_without_keypoints(name: LearnedDetectorName, learned_weights: Path, tmp_path: Path) -> None:
    images = write(tmp_path / "p", a=np.full((20, 200, 3), 90, np.uint8), b=np.full((64, 100, 3), 90, np.uint8))
    detector = make_detector(FeatureConfig(detector=name), networks(learned_weights))
    matcher = make_matcher(DescriptorMatchingConfig(), name, networks(learned_weights))
    tiny, blank = (detector.detect(images, k) for k in range(2))
    assert tiny.xy.shape == (0, 2) and tiny.descriptor.shape == (0, DESCRIPTOR_WIDTH[name])
    ready = [matcher.prepare(f) for f in (tiny, blank)]
    assert len(matcher.match(ready[0], ready[1]).keypoint) == 0


def test_the_number_of_keypoints_is_limited(learned_weights: Path, tmp_path: Path) -> None:
    images = write(tmp_path / "p", a=checkered((320, 224), (0, 0)))
    for name in NAMES:
        everything, few = (
            make_detector(FeatureConfig(detector=name, max_learned_keypoints=n), networks(learned_weights)).detect(
                images, 0
            )
            for n in (None, 50)
        )
        assert len(few.xy) == 50 < len(everything.xy)
        assert {tuple(xy) for xy in few.xy.tolist()} < {tuple(xy) for xy in everything.xy.tolist()}


def test_deformable_convolution_is_what_it_says() -> None:
    """ALIKED's own layer in kornia, against a loop over every sample."""
    from kornia.feature.aliked.deform_conv2d import deform_conv2d

    rng = torch.Generator().manual_seed(0)
    picture, weight = torch.randn(1, 2, 5, 6, generator=rng), torch.randn(3, 2, 3, 3, generator=rng)
    offset = 2 * torch.randn(1, 18, 5, 6, generator=rng)

    def at(channel: int, y: float, x: float) -> float:
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        total = 0.0
        for v, wv in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
            for u, wu in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                if 0 <= v < 5 and 0 <= u < 6:
                    total += wv * wu * float(picture[0, channel, v, u])
        return total

    expected = torch.zeros(1, 3, 5, 6)
    for out, v, u in np.ndindex(3, 5, 6):
        for channel, tap in np.ndindex(2, 9):
            dy, dx = (float(offset[0, 2 * tap + k, v, u]) for k in range(2))
            value = at(channel, v - 1 + tap // 3 + dy, u - 1 + tap % 3 + dx)
            expected[0, out, v, u] += weight[out, channel, tap // 3, tap % 3] * value
    assert torch.allclose(deform_conv2d(picture, offset, weight, padding=1), expected, atol=1e-4)


def test_layers_for_a_processor_give_what_kornias_give(learned_weights: Path) -> None:
    from kornia.feature import ALIKED
    from kornia.feature.lightglue import CrossBlock

    from anchorsfm.features.learned.processor import FusedCrossAttention, LeanALIKED

    path = learned_weights / DETECTOR_WEIGHTS["aliked"].name
    network = load_detector("aliked", 50, path, torch.device("cpu"))
    assert isinstance(network, LeanALIKED)
    rng = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        picture = torch.rand(1, 3, 70, 101, generator=rng)
        (features, score), (expected, of_score) = (
            kind.extract_dense_map(network, picture) for kind in (LeanALIKED, ALIKED)
        )
        assert score.shape == (1, 1, 70, 101) and torch.allclose(score, of_score, atol=1e-6)
        assert torch.allclose(features, expected, atol=1e-5)
        block = CrossBlock(16, 4).eval()
        i, j = torch.randn(1, 9, 16, generator=rng), torch.randn(1, 12, 16, generator=rng)
        for ours, theirs in zip(FusedCrossAttention(block)(i, j), block(i, j), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ matchers


def described(rng: np.random.Generator, num: int, width: int = 128) -> Features:
    raw = rng.normal(size=(num, width)).astype(np.float32)
    return Features(
        size_wh=np.array([300, 200]),
        xy=rng.uniform(1, 199, (num, 2)).astype(np.float32),
        descriptor=raw / np.linalg.norm(raw, axis=1, keepdims=True),
        keypoint=np.arange(num, dtype=np.int32),
        score=np.linspace(1, 0, num, dtype=np.float32),
    )


def test_mutual_neighbours_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anchorsfm.features.mutual._ROWS", 7)  # several blocks
    rng = np.random.default_rng(0)
    i, j, matcher = described(rng, 40), described(rng, 31), MutualMatcher()
    cosine = i.descriptor @ j.descriptor.T
    expected = [
        (row, column) for row, column in enumerate(cosine.argmax(axis=1).tolist()) if cosine[:, column].argmax() == row
    ]
    found = matcher.match(matcher.prepare(i), matcher.prepare(j))
    assert found.keypoint.tolist() == [list(pair) for pair in expected] and len(expected) > 5
    assert np.allclose(found.score, [max(cosine[pair], 0) for pair in expected], atol=1e-6)
    with pytest.raises(InputError, match="128 and 64 numbers cannot be compared"):
        matcher.match(matcher.prepare(i), matcher.prepare(described(rng, 5, 64)))


@pytest.mark.parametrize("name", NAMES)
def test_lightglue_finds_the_same_squares(name: LearnedDetectorName, learned_weights: Path, tmp_path: Path) -> None:
    images = write(tmp_path / "p", a=checkered((320, 224), (0, 0)), b=checkered((320, 224), (20, 12)))
    detector = make_detector(FeatureConfig(detector=name, max_learned_keypoints=300), networks(learned_weights))
    matcher = make_matcher(DescriptorMatchingConfig(), name, networks(learned_weights))
    features = [detector.detect(images, k) for k in range(2)]
    ready = [matcher.prepare(f) for f in features]
    found = matcher.match(ready[0], ready[1])
    away = features[1].xy[found.keypoint[:, 1]] - features[0].xy[found.keypoint[:, 0]] - (20, 12)
    assert len(found.keypoint) > 60 and (np.abs(away).max(axis=1) < 4.5).mean() > 0.9
    assert found.score.min() >= 0.1 and found.score.max() <= 1
    assert len(np.unique(found.keypoint[:, 0])) == len(np.unique(found.keypoint[:, 1])) == len(found.keypoint)
    sure = make_matcher(DescriptorMatchingConfig(min_score=0.8), name, networks(learned_weights)).match(*ready)
    assert 0 < len(sure.keypoint) < len(found.keypoint) and sure.score.min() >= 0.8
    assert matcher.licence is not None and matcher.licence.terms.endswith("Apache-2.0")


def test_batches_match_as_pairs_do(learned_weights: Path, tmp_path: Path) -> None:
    """Photographs with equally many keypoints go together; what is in the cache is not matched again."""
    images = write(tmp_path / "p", **{n: checkered((256, 192), (6.0 * k, 3.0 * k)) for k, n in enumerate("abcd")})
    detector = make_detector(FeatureConfig(detector="xfeat", max_learned_keypoints=100), networks(learned_weights))
    pairs = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)])

    def matched(batch_size: int, folder: Path | None) -> list[FeatureMatches]:
        config = replace(networks(learned_weights), batch_size=batch_size)
        matcher = LightGlueMatcher("xfeat", DescriptorMatchingConfig(), config, SILENT)
        calls = []
        original = matcher.match_batch
        matcher.match_batch = lambda rows: calls.append(len(rows)) or original(rows)  # type: ignore[method-assign]
        store = FeatureStore(images=images, detector=detector, store=Store(folder))
        result = MatchStore(features=store, matcher=matcher).match_all(pairs, SILENT, 1)
        sizes.append(calls)
        return result

    sizes: list[list[int]] = []
    together, again, three = (matched(4, tmp_path / "c"), matched(4, tmp_path / "c"), matched(5, tmp_path / "d"))
    assert sizes == [[4, 2], [], [5, 1]]
    for one, other, third in zip(together, again, three, strict=True):
        assert np.array_equal(one.keypoint, other.keypoint) and len(one.keypoint) > 20
        assert np.array_equal(one.keypoint, third.keypoint) and np.allclose(one.score, third.score, atol=1e-4)


def test_convolutions_on_a_gpu_are_in_float32(learned_weights: Path, tmp_path: Path) -> None:
    """Switched on for all that the networks do: seen by every layer, as there is no GPU to see it by the numbers."""
    images = write(tmp_path / "p", a=checkered((320, 224), (0, 0)))
    seen: list[bool] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda _module, _inputs: seen.append(torch.backends.cudnn.allow_tf32)
    )
    with hook:
        found = make_detector(FeatureConfig(detector="disk"), networks(learned_weights)).detect(images, 0)
        layers = len(seen)
        matcher = make_matcher(DescriptorMatchingConfig(), "disk", networks(learned_weights))
        matcher.match(*[matcher.prepare(found)] * 2)
    assert 0 < layers < len(seen) and not any(seen)


def test_lightglue_refuses_the_keypoints_of_others(learned_weights: Path) -> None:
    rng = np.random.default_rng(0)
    matcher = make_matcher(DescriptorMatchingConfig(), "xfeat", networks(learned_weights))
    with pytest.raises(InputError, match="matches xfeat keypoints: these are of another detector"):
        matcher.prepare(described(rng, 5))
    for config, detector in (
        (DescriptorMatchingConfig(matcher="lightglue"), "sift"),
        (DescriptorMatchingConfig(matcher="ratio-test"), "disk"),
    ):
        with pytest.raises(SettingError, match=f"cannot match keypoints of {detector}: choose one of"):
            make_matcher(config, detector)


# ------------------------------------------------------------------------------------------------ with everything else


def test_the_front_end_runs_with_them(learned_weights: Path, rendered: Path, tmp_path: Path) -> None:
    images = load_image_set(rendered / "images")
    frontend = ClassicalFrontend(
        dense=DenseConfig(enabled=False),
        workers=WorkerConfig(num_workers=1),
        features=FeatureConfig(detector="xfeat", max_learned_keypoints=600),
        networks=networks(learned_weights),
    )
    predictor = frontend.open(images, make_pairs(5, "swin-1-noncyclic"), Store(tmp_path), SILENT)
    assert min(len(p.keypoint_matches) for p in predictor) >= 30
    assert predictor.licence is not None
    assert predictor.licence.weights == "xfeat.pt, xfeat-lighterglue.pt"
    assert predictor.licence.terms == "XFeat: Apache-2.0, LighterGlue: Apache-2.0"
    features = FeatureStore(
        images=images,
        detector=make_detector(replace(frontend.features, max_image_size=1024), networks(learned_weights)),
        store=Store(tmp_path),
    )
    similarity = image_similarity(features, SILENT, 1)
    assert np.allclose(np.diag(similarity), 1, atol=1e-5)
    assert similarity[0, 1] > similarity[0, 4], "neighbours are more alike"


def test_keys_follow_what_a_method_depends_on(learned_weights: Path) -> None:
    base, net = FeatureConfig(detector="disk"), networks(learned_weights)
    others = [
        replace(base, max_learned_keypoints=99),
        replace(base, max_image_size=99),
        replace(base, detector="xfeat"),
    ]
    assert len({make_detector(c, net).digest for c in (base, *others)}) == 4
    assert make_detector(base, net).digest == make_detector(replace(base, max_keypoints=99), net).digest
    digests = {make_matcher(DescriptorMatchingConfig(min_score=s), n, net).digest for s in (0.1, 0.2) for n in NAMES}
    assert len(digests) == 6
