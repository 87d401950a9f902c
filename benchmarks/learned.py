"""Learned keypoints and matches beside SIFT: hard pairs, and the poses of all pairs by their rotation angle.

    OMP_NUM_THREADS=1 python benchmarks/learned.py FOLDER ... --weights WEIGHTS [--only hard|all] [--device cuda]

FOLDER holds `images/` and `gt.json` with measured poses and intrinsics, WEIGHTS the files of released weights.
Keypoints are found at 1024 px. With the true intrinsics, PoseLib estimates the relative pose of every pair from the
matches as they are (tolerance 1.5 px of the working size, seeded): inliers, and errors of rotation and direction in
degrees. Hard pairs are made anew and timed (CPU seconds, one thread; on a GPU wall seconds, one pair at a time); all
pairs use the cache. Pairs without a pose are wrong by 180 degrees.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import poselib
import torch

from anchorsfm.evaluation.poses import area_under_curve
from anchorsfm.features.config import (
    DescriptorMatchingConfig,
    DetectorName,
    FeatureConfig,
    MatcherChoice,
    NetworkConfig,
)
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.io.images import load_image_set
from anchorsfm.io.json_files import read_json
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs

WORKING_PX, TOLERANCE_PX = 1024, 1.5
HARD = {"fountain-P11": ((0, 7), (2, 9), (0, 10)), "Herz-Jesus-P8": ((0, 6), (0, 7))}
BANDS_DEG = ((0, 30), (30, 60), (60, 180))
MIN_MATCHES = 8


@dataclass(frozen=True)
class Method:
    """A detector with a number of keypoints, and a matcher."""

    title: str
    detector: DetectorName
    keypoints: int | None = None
    matcher: MatcherChoice = "auto"
    all_pairs: bool = True


METHODS = (
    Method("SIFT 12k, ratio .85", "sift"),
    Method("ALIKED 2k, LightGlue", "aliked"),
    Method("ALIKED 4k, LightGlue", "aliked", 4096, all_pairs=False),
    Method("ALIKED 2k, mutual", "aliked", matcher="mutual"),
    Method("DISK 2k, LightGlue", "disk"),
    Method("XFeat 4k, LighterGlue", "xfeat"),
    Method("XFeat 4k, mutual", "xfeat", matcher="mutual"),
)


@dataclass(frozen=True)
class Truth:
    """Measured cameras."""

    pose: np.ndarray
    """(image, 3, 4), cam_from_world."""
    intrinsics: np.ndarray

    @staticmethod
    def read(path: Path, names: tuple[str, ...]) -> "Truth":
        entries = read_json(path)
        assert isinstance(entries, dict)
        of = [entries[Path(name).name] for name in names]
        pose = [np.column_stack([e["R_cam_from_world"], e["t_cam_from_world"]]) for e in of]
        return Truth(np.array(pose), np.array([e["K"] for e in of]))

    def relative(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        rotation = self.pose[j, :, :3] @ self.pose[i, :, :3].T
        return rotation, self.pose[j, :, 3] - rotation @ self.pose[i, :, 3]

    def camera(self, image: int, size_wh: np.ndarray) -> dict:
        k = self.intrinsics[image]
        params = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
        return {"model": "PINHOLE", "width": int(size_wh[0]), "height": int(size_wh[1]), "params": params}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--only", choices=("hard", "all"))
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--methods", default="", help="words of the titles to look at")
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = [m for m in METHODS if all(word in m.title for word in args.methods.split())]
    for folder in args.folders:
        if args.only != "all":
            hard(folder, methods, NetworkConfig(weights=args.weights, device=args.device))
        if args.only != "hard":
            all_pairs(folder, methods, NetworkConfig(weights=args.weights, device=args.device), Store(args.cache))


def hard(folder: Path, methods: list[Method], networks: NetworkConfig) -> None:
    """Inliers (rotation, direction error) of hard pairs, and what they cost."""
    pairs = HARD[folder.name]
    seconds = time.process_time if networks.device == "cpu" else time.perf_counter
    titles = " | ".join(f"{i}, {j}" for i, j in pairs)
    clock = "CPU" if networks.device == "cpu" else "wall"
    print(f"\n| {folder.name} | {titles} | {clock} s an image | a pair |\n|---|{'---|' * len(pairs)}---|---|")
    for method in methods:
        matches, truth = opened(folder, method, networks, Store(None))
        images = sorted({image for pair in pairs for image in pair})
        matches.features.features(images[0])  # loads the network
        begin = seconds()
        for image in images[1:]:
            matches.features.features(image)
        image_s = (seconds() - begin) / (len(images) - 1)
        matches.matches(images[0], images[0])
        begin = seconds()
        found = [matches.matches(i, j).keypoint for i, j in pairs]
        pair_s = (seconds() - begin) / len(pairs)
        cells = []
        for (i, j), keypoint in zip(pairs, found, strict=True):
            inliers, rotation_deg, direction_deg = judged(matches, truth, i, j, keypoint)
            cells.append(f"{inliers} ({rotation_deg:.2f}, {direction_deg:.2f})")
        print(f"| {method.title} | {' | '.join(cells)} | {image_s:.2f} | {pair_s:.2f} |", flush=True)


def all_pairs(folder: Path, methods: list[Method], networks: NetworkConfig, store: Store) -> None:
    """Areas under the curve of pose errors, by rotation angle."""
    bands = " | ".join(f"{low} .. {high} deg, AUC@5 / 10 / 20" for low, high in BANDS_DEG)
    print(f"\n| {folder.name} | all, AUC@5 / 10 / 20 | {bands} |\n|---|---|{'---|' * len(BANDS_DEG)}")
    for method in methods:
        if not method.all_pairs:
            continue
        matches, truth = opened(folder, method, networks, store)
        pairs = make_pairs(len(truth.pose), "complete").index.tolist()
        error = np.array([max(judged(matches, truth, i, j, matches.matches(i, j).keypoint)[1:]) for i, j in pairs])
        angle = np.array([rotation_angle_deg(truth.relative(i, j)[0]) for i, j in pairs])
        chosen = [np.ones(len(pairs), bool), *[(low <= angle) & (angle < high) for low, high in BANDS_DEG]]
        cells = [areas(error[rows]) if rows.any() else "" for rows in chosen]
        print(f"| {method.title} | {' | '.join(cells)} |", flush=True)


def areas(error_deg: np.ndarray) -> str:
    """Under the curve up to 5, 10 and 20 degrees, and the number of pairs."""
    return f"{' / '.join(f'{area_under_curve(error_deg, limit):.2f}' for limit in (5, 10, 20))} ({len(error_deg)})"


def opened(folder: Path, method: Method, networks: NetworkConfig, store: Store) -> tuple[MatchStore, Truth]:
    """Matches of a set by a method, as they are asked for."""
    images = load_image_set(folder / "images")
    config = FeatureConfig(detector=method.detector, max_image_size=WORKING_PX, max_learned_keypoints=method.keypoints)
    features = FeatureStore(images=images, detector=make_detector(config, networks), store=store)
    matcher = make_matcher(DescriptorMatchingConfig(matcher=method.matcher), method.detector, networks)
    return MatchStore(features=features, matcher=matcher), Truth.read(folder / "gt.json", images.names)


def judged(matches: MatchStore, truth: Truth, i: int, j: int, keypoint: np.ndarray) -> tuple[int, float, float]:
    """Inliers of the relative pose that the matches show, and its errors of rotation and direction in degrees."""
    if len(keypoint) < MIN_MATCHES:
        return 0, 180.0, 180.0
    images = matches.features.images
    xy_i, xy_j = (matches.features.features(k).xy[keypoint[:, n]] for n, k in enumerate((i, j)))
    tolerance = TOLERANCE_PX * images.size_wh[i].max() / WORKING_PX
    options = {"max_epipolar_error": tolerance, "max_iterations": 10_000, "seed": 0}
    cameras = [truth.camera(k, images.size_wh[k]) for k in (i, j)]
    pose, info = poselib.estimate_relative_pose(xy_i.astype(float), xy_j.astype(float), *cameras, options, {})
    rotation, direction = truth.relative(i, j)
    cosine = pose.t @ direction / max(np.linalg.norm(pose.t) * np.linalg.norm(direction), 1e-12)
    return (
        int(np.sum(info["inliers"])),
        rotation_angle_deg(pose.R @ rotation.T),
        float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def rotation_angle_deg(rotation: np.ndarray) -> float:
    """Of a rotation matrix."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


if __name__ == "__main__":
    main()
