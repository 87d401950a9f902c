"""What concerns the whole set, once: features, matches, focal lengths, relative poses, the scale of the pairs.

Every result is cached under a key made of its inputs (contents of the image files, configuration), per image or per
pair, so that a killed run continues where it was and a changed setting recomputes only what depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Float32, Int

from anchorsfm.frontend.classical import cache
from anchorsfm.frontend.classical.features import Features, detect
from anchorsfm.frontend.classical.focal import FocalEvidence, devices, estimate_focals_px, gather_evidence
from anchorsfm.frontend.classical.frontend import ClassicalFrontend
from anchorsfm.frontend.classical.matching import DescriptorIndex, build_index, match
from anchorsfm.frontend.classical.predictor import ClassicalPredictor, SetGeometry
from anchorsfm.frontend.classical.rays import centred, reference_scale
from anchorsfm.frontend.classical.scale import synchronise
from anchorsfm.frontend.classical.two_view import RelativePose, Verified, relate, verify
from anchorsfm.frontend.classical.workers import ordered_map, single_threaded_libraries
from anchorsfm.io.images import load_grey, working_size_wh
from anchorsfm.io.store import Store, digest
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress

Output = TypeVar("Output")

VERSION = 3
"""Raise when the algorithm changes its results: cached results of older versions are then ignored."""
MATCH_CONFIDENCE = 11.0
"""Confidence above 1 of a keypoint match that fits the geometry of its pair exactly."""


def open_predictor(
    config: ClassicalFrontend, images: ImageSet, pairs: PairList, store: Store, progress: Progress
) -> ClassicalPredictor:
    """Features, matches, focal lengths, relative poses and their scales; dense depth follows on iteration."""
    index = pairs.index.astype(np.int64)
    run = _Run(config=config, images=images, pairs=index, store=store, progress=progress)
    with single_threaded_libraries():
        features = run.detect_all()
        xy = tuple(f.xy for f in features)
        verified = run.verify_all(features)
        del features  # descriptors: 1 MB per image that nothing needs any more
        focal_px = estimate_focals_px(images, index, [evidence for _, evidence in verified], config.intrinsics)
        poses = run.relate_all(xy, [matches for matches, _ in verified], focal_px)
    geometry = SetGeometry(
        xy=xy,
        focal_px=focal_px,
        poses=poses,
        match_confidence=tuple(_match_confidence(pose, config.matching.max_epipolar_error_px) for pose in poses),
        baseline=synchronise(index, list(poses)),
    )
    return ClassicalPredictor(
        images=images,
        pairs=index,
        geometry=geometry,
        grid=make_grid(images, config.dense.size),
        config=config.dense,
        store=store,
        digest=_digest(config, images, index),
        num_workers=config.workers.resolve(),
    )


def _digest(config: ClassicalFrontend, images: ImageSet, pairs: Int[np.ndarray, "pair 2"]) -> str:
    """Everything predictions depend on; neither the file names nor the number of threads."""
    stages = (config.features, config.matching, config.intrinsics, config.two_view, config.dense)
    return digest("classical", VERSION, stages, images.digests, images.camera_index, images.focal_prior_px, pairs)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One opening of the front end: each method is one stage over all images or pairs."""

    config: ClassicalFrontend
    images: ImageSet
    pairs: Int[np.ndarray, "pair 2"]
    store: Store
    progress: Progress

    def detect_all(self) -> list[Features]:
        return self._stage("finding keypoints", self._features, self.images.num_images)

    def verify_all(self, features: list[Features]) -> list[tuple[Verified, FocalEvidence]]:
        """Verified matches of every pair, and what they say about focal lengths."""
        device = devices(self.images)
        points = [centred(self.images, image, f.xy) for image, f in enumerate(features)]
        keys = [self._features_key(image) for image in range(self.images.num_images)]
        index: dict[int, DescriptorIndex] = {}  # two threads may both build one: the result is the same

        def indexed(image: int) -> DescriptorIndex:
            if image not in index:
                index[image] = build_index(features[image])
            return index[image]

        def work(pair: int) -> tuple[Verified, FocalEvidence]:
            i, j = self.pairs[pair].tolist()
            same_device = bool(device[i] == device[j])
            key = digest("verified", VERSION, keys[i], keys[j], same_device, self.config.matching)
            stored = self.store.load("classical-matches", key)
            if stored is not None:
                return cache.decode_verified(stored)
            matching = self.config.matching
            candidate = match(indexed(i), indexed(j), matching.max_ratio)
            verified = verify(points[i][candidate[:, 0]], points[j][candidate[:, 1]], candidate, matching)
            evidence = gather_evidence(
                points[i][verified.keypoint[:, 0]],
                points[j][verified.keypoint[:, 1]],
                verified.fundamental,
                same_device,
                matching.max_epipolar_error_px,
            )
            arrays = cache.encode_verified(verified, evidence)
            self.store.save("classical-matches", key, arrays)
            return cache.decode_verified(arrays)

        return self._stage("matching pairs", work, len(self.pairs))

    def relate_all(
        self, xy: tuple[Float[np.ndarray, "_ 2"], ...], verified: list[Verified], focal_px: Float[np.ndarray, "image"]
    ) -> tuple[RelativePose, ...]:
        """Relative pose of every pair with the focal lengths of the set."""
        points = [centred(self.images, image, p) for image, p in enumerate(xy)]
        focal = focal_px * reference_scale(self.images.size_wh)

        def work(pair: int) -> RelativePose:
            i, j = self.pairs[pair].tolist()
            keypoint = verified[pair].keypoint
            xy_i, xy_j = points[i][keypoint[:, 0]], points[j][keypoint[:, 1]]
            focal_ij = (float(focal[i]), float(focal[j]))
            key = digest("pose", VERSION, xy_i, xy_j, keypoint, focal_ij, self.config.matching, self.config.two_view)
            stored = self.store.load("classical-poses", key)
            if stored is not None:
                return cache.decode_pose(stored)
            pose = relate(xy_i, xy_j, keypoint, focal_ij, self.config.matching, self.config.two_view)
            self.store.save("classical-poses", key, cache.encode_pose(pose))
            return pose

        return tuple(self._stage("estimating relative poses", work, len(self.pairs)))

    def _features_key(self, image: int) -> str:
        return digest("features", VERSION, self.images.digests[image], self.config.features)

    def _features(self, image: int) -> Features:
        key = self._features_key(image)
        stored = self.store.load("classical-features", key)
        if stored is not None:
            return cache.decode_features(stored)
        size_wh = self.images.size_wh[image]
        grey = load_grey(self.images, image, working_size_wh(size_wh, self.config.features.max_image_size))
        features = detect(grey, size_wh, self.config.features)
        self.store.save("classical-features", key, cache.encode_features(features))
        return features

    def _stage(self, description: str, function: Callable[[int], Output], total: int) -> list[Output]:
        results = []
        with self.progress.stage(description, total) as advance:
            for result in ordered_map(function, range(total), self.config.workers.resolve()):
                results.append(result)
                advance(1)
        return results


def make_grid(images: ImageSet, long_side: int) -> ImageGrid:
    """Grid of every image: its long side at most `long_side`, never enlarged, both sides scaled as alike as possible.

    A downstream model has one focal length per image, so a difference between the scales of the two sides (rounding
    341.33 pixels to 341) would be an error of up to 0.1 % that nothing can absorb. A few pixels less on the long side
    avoid most of it.
    """
    size_wh = np.stack([_grid_size_wh(wh, long_side) for wh in images.size_wh])
    return ImageGrid(size_wh=size_wh, scale=size_wh / images.size_wh, offset=np.zeros((len(size_wh), 2)))


def _grid_size_wh(size_wh: Int[np.ndarray, "2"], long_side: int) -> Int[np.ndarray, "2"]:
    largest = min(long_side, int(size_wh.max()))
    candidates = np.arange(largest, int(np.ceil(0.97 * largest)) - 1, -1)
    exact = candidates[:, None] * size_wh / size_wh.max()
    rounded = np.maximum(np.rint(exact), 1)
    unevenness = np.abs(np.log(rounded / exact)).max(1)
    good_enough = unevenness <= max(1e-4, float(unevenness.min()))
    return rounded[np.argmax(good_enough)].astype(np.int64)


def _match_confidence(pose: RelativePose, max_error_px: float) -> Float32[np.ndarray, "match"]:
    """Falls off with the distance from the epipolar line; a match at the threshold is doubtful."""
    return (1 + MATCH_CONFIDENCE * np.exp(-2 * (pose.error_px / max_error_px) ** 2)).astype(np.float32)
