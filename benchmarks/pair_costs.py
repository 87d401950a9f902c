"""What a pair of photographs costs before dense depth, and what it finds: variants side by side in one process.

    OMP_NUM_THREADS=1 python benchmarks/pair_costs.py FOLDER [--every 1] [--cache CACHE]

FOLDER holds `images/` and, if poses are known, `gt.json`; every n-th pair of the complete graph is looked at. Matching:
the inverted file with integer and with floating point products, and all descriptors against all. Robust estimation:
PoseLib with its own least number of samples, 1000, and with ours. CPU milliseconds a pair, one thread. "kept" is the
share of the exhaustive matches that agree with one epipolar geometry and were found; errors are degrees of rotation or
direction, whichever is larger, of pairs with 60 verified matches and more, for a focal length of `--focal` long sides.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import poselib
import torch

from anchorsfm.features import ratio_test
from anchorsfm.features.base import FeatureMatches
from anchorsfm.features.config import DescriptorMatchingConfig
from anchorsfm.features.methods import make_detector
from anchorsfm.features.store import FeatureStore
from anchorsfm.features.verification import MAX_RANSAC_ITERATIONS, MIN_RANSAC_ITERATIONS
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.geometry.centred import centred
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs

RATIO = DescriptorMatchingConfig().max_ratio
TOLERANCE_PX = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--focal", type=float, default=0.9, help="over the long side")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = load_image_set(args.folder / "images")
    config = ClassicalFrontend().for_run(RunSettings()).features
    store = FeatureStore(images=images, detector=make_detector(config), store=Store(args.cache))
    features = [store.features(image) for image in range(images.num_images)]
    pairs = make_pairs(images.num_images, "complete").index[:: args.every].astype(int).tolist()
    used = sorted({image for pair in pairs for image in pair})
    points = [centred(images, image, f.xy) for image, f in enumerate(features)]
    begin = time.process_time()
    index = {image: ratio_test.build_index(features[image]) for image in used}
    print(f"{len(pairs)} pairs; index: {1e3 * (time.process_time() - begin) / len(used):.1f} ms an image\n")

    def inverted(kind: torch.dtype) -> Callable[[int, int], FeatureMatches]:
        def match(i: int, j: int) -> FeatureMatches:
            ratio_test._PRODUCT = kind
            return ratio_test.match(index[i], index[j], RATIO)

        return match

    floats = {image: features[image].descriptor.astype(np.float32) for image in used}
    variants = {
        "all descriptors": lambda i, j: exhaustive(floats[i], floats[j], features[i].keypoint, features[j].keypoint),
        "inverted file, floating point": inverted(torch.float32),
        "inverted file, integers": inverted(torch.int32),
    }
    print("| matching | ms a pair | matches | verified | kept |\n|---|---|---|---|---|")
    reference: list[set[tuple[int, int]]] = []
    for name, match in variants.items():
        found, cost = timed(match, pairs)
        verified = [agreeing(points, pair, m.keypoint) for pair, m in zip(pairs, found, strict=True)]
        rows = [set(map(tuple, v.tolist())) for v in verified]
        reference = reference or rows
        matched = [set(map(tuple, m.keypoint.tolist())) for m in found]
        kept = sum(len(a & b) for a, b in zip(matched, reference, strict=True)) / max(sum(map(len, reference)), 1)
        print(f"| {name} | {cost:.1f} | {mean(matched):.0f} | {mean(rows):.0f} | {kept:.3f} |", flush=True)
    data = [(points[i][m.keypoint[:, 0]], points[j][m.keypoint[:, 1]]) for (i, j), m in zip(pairs, found, strict=True)]
    print("\n| robust estimation | least samples | ms a pair | agreeing | error, median | error, mean up to 10 |")
    print("|---|---|---|---|---|---|")
    for least in (1000, MIN_RANSAC_ITERATIONS):
        results, cost = timed(lambda i, j, least=least: fundamental(i, j, least), data)
        print(
            f"| fundamental matrix | {least} | {cost:.1f} | {np.mean([r.sum() for r in results]):.1f} | | |", flush=True
        )
    close = [n for n, inlier in enumerate(results) if inlier.sum() >= 60]
    held = [(data[n][0][results[n]], data[n][1][results[n]]) for n in close]
    truth = read_truth(args.folder / "gt.json", images.names)
    for least in (1000, MIN_RANSAC_ITERATIONS):
        poses, cost = timed(lambda i, j, least=least: relative(i, j, 1024 * args.focal, least), held)
        agree = np.mean([inlier.sum() for _, inlier in poses])
        error = np.array([error_deg(truth, pairs[n], pose) for n, (pose, _) in zip(close, poses, strict=True)])
        median, average = np.median(error), np.minimum(error, 10).mean()
        print(f"| relative pose | {least} | {cost:.1f} | {agree:.1f} | {median:.3f} | {average:.3f} |", flush=True)


def timed(function: Callable, arguments: list) -> tuple[list, float]:
    begin = time.process_time()
    results = [function(i, j) for i, j in arguments]
    return results, 1e3 * (time.process_time() - begin) / max(len(arguments), 1)


def mean(sets: list[set]) -> float:
    return float(np.mean([len(s) for s in sets]))


def exhaustive(a: np.ndarray, b: np.ndarray, keypoint_a: np.ndarray, keypoint_b: np.ndarray) -> FeatureMatches:
    """Mutual nearest neighbours by all products of 8-bit descriptors, and the ratio test."""
    product = torch.from_numpy(a) @ torch.from_numpy(b).T
    best, column = product.max(1)
    mutual = best == product.amax(0)[column]
    second = product.scatter_(1, column[:, None], -1).amax(1)
    norm = 512.0**2
    good = mutual & ((2 - 2 * best / norm).clamp_min(0) < RATIO**2 * (2 - 2 * second / norm).clamp_min(0))
    rows = good.nonzero()[:, 0].numpy()
    keypoint = np.stack([keypoint_a[rows], keypoint_b[column.numpy()[rows]]], axis=1)
    return FeatureMatches(keypoint=np.unique(keypoint, axis=0), score=np.zeros(0, np.float32))


def agreeing(points: list[np.ndarray], pair: list[int], keypoint: np.ndarray) -> np.ndarray:
    """Matches of one epipolar geometry; none where chance would find as many."""
    if len(keypoint) < 30:
        return keypoint[:0]
    i, j = pair
    inlier = fundamental(points[i][keypoint[:, 0]], points[j][keypoint[:, 1]], 1000)
    return keypoint[inlier] if inlier.sum() >= 100 else keypoint[:0]


def fundamental(xy_i: np.ndarray, xy_j: np.ndarray, least: int) -> np.ndarray:
    if len(xy_i) < 30:
        return np.zeros(len(xy_i), bool)
    ransac = {"max_epipolar_error": TOLERANCE_PX, "max_iterations": MAX_RANSAC_ITERATIONS, "min_iterations": least}
    return np.array(poselib.estimate_fundamental(xy_i, xy_j, {**ransac, "seed": 0}, {})[1]["inliers"], bool)


def relative(xy_i: np.ndarray, xy_j: np.ndarray, focal: float, least: int) -> tuple[np.ndarray, np.ndarray]:
    camera = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
    ransac = {"max_epipolar_error": TOLERANCE_PX, "max_iterations": MAX_RANSAC_ITERATIONS, "min_iterations": least}
    loss = {"loss_type": "CAUCHY", "loss_scale": TOLERANCE_PX / 3}
    pose, info = poselib.estimate_relative_pose(xy_i, xy_j, camera, camera, {**ransac, "seed": 0}, loss)
    return np.array(pose.Rt), np.array(info["inliers"], bool)


def read_truth(path: Path, names: tuple[str, ...]) -> list[np.ndarray] | None:
    if not path.exists():
        return None
    poses = {Path(name).stem: pose for name, pose in json.loads(path.read_text()).items()}
    chosen = [poses[Path(name).stem] for name in names]
    return [np.column_stack([pose["R_cam_from_world"], pose["t_cam_from_world"]]) for pose in chosen]


def error_deg(truth: list[np.ndarray] | None, pair: list[int], pose: np.ndarray) -> float:
    if truth is None:
        return float("nan")
    (a, b), rotation = (truth[k] for k in pair), pose[:, :3]
    true_rotation = b[:, :3] @ a[:, :3].T
    true_direction = b[:, 3] - true_rotation @ a[:, 3]
    turn = (np.trace(true_rotation.T @ rotation) - 1) / 2
    along = true_direction @ pose[:, 3] / np.linalg.norm(true_direction) / np.linalg.norm(pose[:, 3])
    return float(np.degrees(np.arccos(np.clip([turn, along], -1, 1))).max())


if __name__ == "__main__":
    main()
