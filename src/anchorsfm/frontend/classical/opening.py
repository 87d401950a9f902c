"""What concerns the whole set, once: features, matches, intrinsics, relative poses and which of them to believe, the
scale of the pairs.

Every result is cached under a key made of its inputs (contents of the image files, configuration), per image or per
pair, so that a killed run continues where it was and a changed setting recomputes only what depends on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Float32, Int

from anchorsfm.features.joint import JointMatchStore
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.features.verification import VerificationStore, Verified
from anchorsfm.frontend.classical import lens
from anchorsfm.frontend.classical.agreement import believed, with_closing_poses
from anchorsfm.frontend.classical.config import ClassicalConfig
from anchorsfm.frontend.classical.depth_pairs import choose_depth_pairs
from anchorsfm.frontend.classical.focal import devices, estimate_focals_px
from anchorsfm.frontend.classical.focal_evidence import FocalEvidence
from anchorsfm.frontend.classical.planes import MIN_ON_PLANE, other_pose
from anchorsfm.frontend.classical.predictor import ClassicalPredictor, SetGeometry
from anchorsfm.frontend.classical.scale import synchronise
from anchorsfm.frontend.classical.second import Helped, SecondMethod, second_store
from anchorsfm.frontend.classical.tools import (
    Job,
    PairTool,
    RelateJob,
    RelatePairs,
    VerifyJob,
    VerifyPairs,
    fill_pairs,
)
from anchorsfm.frontend.classical.two_view import PairLens, RelativePose
from anchorsfm.geometry.centred import centred, reference_scale
from anchorsfm.io.store import Store, digest
from anchorsfm.io.weights.release import joint_licence
from anchorsfm.io.workers import map_stage, single_threaded_libraries
from anchorsfm.scene.images import Distortion, ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress
from anchorsfm.stereo.grid import make_grid

Output = TypeVar("Output")

VERSION = 7
"""Raise when the algorithm changes its results: cached results of older versions are then ignored."""
MATCH_CONFIDENCE = 11.0
"""Confidence above 1 of a keypoint match that fits the geometry of its pair exactly."""


def open_predictor(
    config: ClassicalConfig, images: ImageSet, pairs: PairList, store: Store, progress: Progress
) -> ClassicalPredictor:
    """Features, matches, intrinsics, relative poses and their scales; dense depth follows on iteration."""
    index = pairs.index.astype(np.int64)
    detector = make_detector(config.features, config.networks, progress)
    matcher = make_matcher(config.matching, config.features.first_detector, config.networks, progress)
    found = FeatureStore(images=images, detector=detector, store=store)
    matches = MatchStore(features=found, matcher=matcher)
    second = second_store(config, matches, progress) if config.has_second_method else None
    methods = [matches] if second is None else [matches, second]
    licences = [used.licence for method in methods for used in (method.features.detector, method.matcher)]
    workers = config.workers.resolve()
    run = _Run(config=config, images=images, pairs=index, matches=matches, store=store, progress=progress)
    with single_threaded_libraries():
        xy = tuple(found.each(lambda features: features.xy, "finding keypoints", progress, workers))
        candidates = [pair.keypoint for pair in matches.match_all(index, progress, workers)]
        distortion = run.find_distortion(xy, candidates)
        points = run.undistorted(xy, distortion)
        verified = run.verify_all(points, candidates, distortion)
        helped = Helped.nothing(xy, [pair.keypoint for pair, _ in verified])
        if config.has_second_method:
            helped, points, verified = run.with_second_method(xy, points, candidates, verified, distortion)
        focal_px = estimate_focals_px(images, index, [evidence for _, evidence in verified], config.intrinsics)
        poses = run.relate_all(points, helped.keypoint, focal_px, distortion)
        if config.consistency.enabled:
            on_plane = np.flatnonzero([evidence.homography_ratio >= MIN_ON_PLANE for _, evidence in verified])
            others = run.other_poses(points, poses, focal_px, on_plane)
            poses = with_closing_poses(index, poses, others, images.num_images, config.consistency.agreement_deg)
            poses = believed(index, poses, images.num_images, config.consistency)
    has_depth = np.zeros(len(index), bool)
    if config.dense.enabled:
        has_depth = choose_depth_pairs(index, poses, config.dense.pairs_per_image)
    geometry = SetGeometry(
        xy=helped.xy,
        focal_px=focal_px,
        poses=poses,
        has_depth=has_depth,
        match_confidence=tuple(_match_confidence(pose, config.matching.max_epipolar_error_px) for pose in poses),
        baseline=synchronise(index, list(poses)),
        methods=helped.methods(index, poses, config),
        num_exact=helped.num_first if helped.second_is_coarse(config) else None,
    )
    predictor = ClassicalPredictor(
        images=images,
        pairs=index,
        geometry=geometry,
        grid=make_grid(images, config.dense.size, distortion, focal_px),
        config=config.dense,
        store=store,
        digest=_digest(config, matches, second, index),
        num_workers=workers,
        licence=joint_licence(licences),
    )
    predictor.fill(progress)
    return predictor


def _digest(
    config: ClassicalConfig, matches: MatchStore, second: MatchStore | None, pairs: Int[np.ndarray, "pair 2"]
) -> str:
    """Everything predictions depend on; neither the file names nor the number of threads."""
    images = matches.features.images
    methods: tuple[object, ...] = (matches.features.detector.digest, matches.matcher.digest)
    if second is not None:
        methods = (*methods, second.features.detector.digest, second.matcher.digest, config.second)
    stages = (methods, config.matching, config.intrinsics, config.two_view, config.consistency, config.dense)
    return digest(
        "classical",
        VERSION,
        stages,
        images.contents,
        images.camera_index,
        images.focal_prior_px,
        images.distortion_prior,
        pairs,
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One opening of the front end: each method is one stage over all images or pairs."""

    config: ClassicalConfig
    images: ImageSet
    pairs: Int[np.ndarray, "pair 2"]
    matches: MatchStore | JointMatchStore
    store: Store
    progress: Progress

    def find_distortion(
        self, xy: tuple[Float[np.ndarray, "_ 2"], ...], candidates: list[Int[np.ndarray, "_ 2"]]
    ) -> Distortion:
        """Lens distortion of every image: given, or that of its device from a few pairs of the device."""
        device = devices(self.images)
        coefficient = np.zeros((self.images.num_images, 2))
        own = device[self.pairs[:, 0]] == device[self.pairs[:, 1]]
        num_matches = np.array([len(keypoint) for keypoint in candidates], np.int64)
        for row in range(int(device.max()) + 1) if self.config.intrinsics.estimate_distortion else ():
            pairs = np.flatnonzero(own & (device[self.pairs[:, 0]] == row))
            pairs = pairs[lens.choose_pairs(self.pairs[pairs], num_matches[pairs])]
            if len(pairs):
                coefficient[device == row] = self._device_distortion(pairs, xy, candidates)
        if self.images.distortion_prior is not None:
            given = self.images.distortion_prior
            coefficient = np.where(np.isfinite(given), given, coefficient)
        return Distortion(image_wh=self.images.size_wh, coefficient=coefficient)

    def _device_distortion(
        self,
        pairs: Int[np.ndarray, "chosen"],
        xy: tuple[Float[np.ndarray, "_ 2"], ...],
        candidates: list[Int[np.ndarray, "_ 2"]],
    ) -> Float[np.ndarray, "2"]:
        key = digest("lens", VERSION, [self._match_key(int(pair)) for pair in pairs], self.config.intrinsics)
        stored = self.store.load("classical-lenses", key)
        if stored is not None:
            return stored["coefficient"]
        matches = [self._centred_matches(int(pair), xy, candidates[pair]) for pair in pairs]
        size_wh = self.images.size_wh[self.pairs[pairs[0], 0]]
        found = lens.estimate_distortion(matches, lens.half_diagonal(size_wh), self.config.intrinsics)
        self.store.save("classical-lenses", key, {"coefficient": found})
        return found

    def _centred_matches(
        self, pair: int, xy: tuple[Float[np.ndarray, "_ 2"], ...], keypoint: Int[np.ndarray, "match 2"]
    ) -> lens.LensMatches:
        i, j = self.pairs[pair].tolist()
        return lens.LensMatches(
            xy_i=centred(self.images, i, xy[i][keypoint[:, 0]]), xy_j=centred(self.images, j, xy[j][keypoint[:, 1]])
        )

    def undistorted(self, xy: tuple[Float[np.ndarray, "_ 2"], ...], distortion: Distortion) -> list[lens.LensPoints]:
        """Keypoints of every image in centred coordinates."""
        return [self.undistorted_points(image, points, distortion) for image, points in enumerate(xy)]

    def undistorted_points(
        self, image: int, xy: Float[np.ndarray, "point 2"], distortion: Distortion
    ) -> lens.LensPoints:
        """Points of one image in centred coordinates."""
        half_diagonal = lens.half_diagonal(self.images.size_wh[image])
        return lens.undistort(centred(self.images, image, xy), distortion.coefficient[image], half_diagonal)

    def verify_all(
        self,
        points: list[lens.LensPoints],
        candidates: Sequence[Int[np.ndarray, "_ 2"]],
        distortion: Distortion,
        rows: Int[np.ndarray, "row"] | None = None,
    ) -> list[tuple[Verified, FocalEvidence]]:
        """Verified matches of every pair, or of some rows, and what they say about focal lengths."""
        device = devices(self.images)
        verification = VerificationStore(matches=self.matches, config=self.config.matching)
        tool = VerifyPairs(store=self.store, config=self.config.matching)
        chosen = np.arange(len(self.pairs)) if rows is None else rows

        def job(pair: int) -> VerifyJob:
            i, j = self.pairs[pair].tolist()
            keypoint, bent = candidates[pair], distortion.coefficient[[i, j]]
            same_device = bool(device[i] == device[j])
            key = verification.key(i, j, bent)
            evidence = digest("evidence", VERSION, self._match_key(pair), same_device, bent, self.config.matching)
            return VerifyJob(
                key=key,
                evidence_key=evidence,
                xy_i=points[i].xy[keypoint[:, 0]],
                xy_j=points[j].xy[keypoint[:, 1]],
                keypoint=keypoint,
                lens=_pair_lens(points[i], points[j], keypoint, bent),
                same_device=same_device,
            )

        return self._stage("verifying pairs", tool, tool.verified, job, chosen)

    def with_second_method(
        self,
        xy: tuple[Float[np.ndarray, "_ 2"], ...],
        points: list[lens.LensPoints],
        candidates: list[Int[np.ndarray, "_ 2"]],
        verified: list[tuple[Verified, FocalEvidence]],
        distortion: Distortion,
    ) -> tuple[Helped, list[lens.LensPoints], list[tuple[Verified, FocalEvidence]]]:
        """Keypoints and matches with those that a second method adds, and what verification makes of both together."""
        assert isinstance(self.matches, MatchStore)
        work = SecondMethod(self.matches, self.config, self.images, self.pairs, xy, candidates, self.progress)
        points, verified = list(points), list(verified)
        work.choose([pair.keypoint for pair, _ in verified])
        while len(rows := work.look()):
            for image in work.new_images:
                points[image] = self.undistorted_points(image, work.xy[image], distortion)
            found = replace(self, matches=work.matches).verify_all(points, work.candidates, distortion, rows)
            for row, pair in zip(rows.tolist(), found, strict=True):
                verified[row] = pair
            work.learn(rows, [len(pair.keypoint) for pair, _ in found])
        return work.finish([pair.keypoint for pair, _ in verified]), points, verified

    def relate_all(
        self,
        points: list[lens.LensPoints],
        verified: Sequence[Int[np.ndarray, "_ 2"]],
        focal_px: Float[np.ndarray, "image"],
        distortion: Distortion,
    ) -> tuple[RelativePose, ...]:
        """Relative pose of every pair, from the rows of its verified matches, with the intrinsics of the set."""
        focal = focal_px * reference_scale(self.images.size_wh)
        matching, two_view = self.config.matching, self.config.two_view

        tool = RelatePairs(store=self.store, matching=matching, two_view=two_view)

        def job(pair: int) -> RelateJob:
            i, j = self.pairs[pair].tolist()
            keypoint = verified[pair]
            xy_i, xy_j = points[i].xy[keypoint[:, 0]], points[j].xy[keypoint[:, 1]]
            focal_ij = (float(focal[i]), float(focal[j]))
            bent = distortion.coefficient[[i, j]]
            return RelateJob(
                key=digest("pose", VERSION, xy_i, xy_j, keypoint, focal_ij, bent, matching, two_view),
                xy_i=xy_i,
                xy_j=xy_j,
                keypoint=keypoint,
                focal_ij=focal_ij,
                lens=_pair_lens(points[i], points[j], keypoint, bent),
            )

        every = np.arange(len(self.pairs))
        return tuple(self._stage("estimating relative poses", tool, tool.pose, job, every))

    def other_poses(
        self,
        points: list[lens.LensPoints],
        poses: Sequence[RelativePose],
        focal_px: Float[np.ndarray, "image"],
        on_plane: Int[np.ndarray, "row"],
    ) -> dict[int, RelativePose]:
        """Of pairs whose matches lie on a plane, by row, the other pose that explains them."""
        focal, found = focal_px * reference_scale(self.images.size_wh), {}
        for row in on_plane.tolist():
            (i, j), keypoint = self.pairs[row].tolist(), poses[row].keypoint
            xy_i, xy_j = points[i].xy[keypoint[:, 0]], points[j].xy[keypoint[:, 1]]
            focal_ij = (float(focal[i]), float(focal[j]))
            other = other_pose(poses[row], xy_i, xy_j, focal_ij, self.config.matching.max_epipolar_error_px)
            if other is not None:
                found[row] = other
        return found

    def _match_key(self, pair: int) -> str:
        i, j = self.pairs[pair].tolist()
        return self.matches.key(i, j)

    def _stage(
        self,
        description: str,
        tool: PairTool[Job],
        use: Callable[[Job], Output],
        job: Callable[[int], Job],
        pairs: Int[np.ndarray, "chosen"],
    ) -> list[Output]:
        """What the tool makes of pairs (rows of the pair list), in order; the executor of the store may be ahead."""
        fill_pairs(description, tool, lambda row: job(int(pairs[row])), len(pairs), self._named(pairs), self.progress)
        workers = self.config.workers.resolve()
        return map_stage(description, lambda row: use(job(int(pairs[row]))), len(pairs), self.progress, workers)

    def _named(self, pairs: Int[np.ndarray, "chosen"]) -> Callable[[int], str]:
        return lambda row: " - ".join(self.images.names[image] for image in self.pairs[pairs[row]])


def _pair_lens(
    points_i: lens.LensPoints,
    points_j: lens.LensPoints,
    keypoint: Int[np.ndarray, "match 2"],
    coefficients: Float[np.ndarray, "2 2"],
) -> PairLens | None:
    """The points of matches, where either image is distorted."""
    if not coefficients.any() or not len(keypoint):
        return None
    return PairLens(i=points_i.rows(keypoint[:, 0]), j=points_j.rows(keypoint[:, 1]))


def _match_confidence(pose: RelativePose, max_error_px: float) -> Float32[np.ndarray, "match"]:
    """Falls off with the distance from the epipolar line; a match at the threshold is doubtful."""
    return (1 + MATCH_CONFIDENCE * np.exp(-2 * (pose.error_px / max_error_px) ** 2)).astype(np.float32)
