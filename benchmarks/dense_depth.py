"""Dense depth of the classical front end against depth triangulated with the true cameras.

    python benchmarks/dense_depth.py PHOTOS TRUTH.json [--max-step 1] [--pictures FOLDER]

TRUTH.json maps file names to {"R_cam_from_world", "t_cam_from_world", "K"} (COLMAP pixels). Pairs are neighbours in the
order of the names. Reference depths come from verified keypoint matches, triangulated with the true cameras; they lie
on texture, so the figures are optimistic for flat areas. Two rows per variant: depth from the true cameras (dense part
alone) and from the front end's own focal lengths and poses, brought to the true scale by one factor per pair (median).
CPU seconds are those of this process with one thread.
"""

import argparse
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig, WorkerConfig
from anchorsfm.frontend.classical.rays import triangulate_depths
from anchorsfm.geometry.transforms import compose, invert
from anchorsfm.io.images import load_image_set
from anchorsfm.io.pictures import load_grey
from anchorsfm.io.store import Store
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction, PairStatus
from anchorsfm.scene.progress import SILENT
from anchorsfm.stereo.pair import dense_depth, stereo_pair
from anchorsfm.stereo.sweep import GridView

VARIANTS = {"fast": 2.0, "quality": 1.0}
"""Distance of the depth planes in pixels."""
MAX_REPROJECTION_PX = 1.0
MIN_ANGLE_DEG = 2.0
CONFIDENCE_EDGES = (1.0, 1.001, 3.0, 5.0, 7.0, 9.0, 10.0, 11.0, 14.0)

Truth = dict[str, dict[str, list[list[float]]]]


def true_pair(truth: Truth, images: ImageSet, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K_i, K_j and j_from_i."""
    camera_i, camera_j = truth[images.names[i]], truth[images.names[j]]
    poses = [
        np.column_stack([np.array(c["R_cam_from_world"]), np.array(c["t_cam_from_world"])])
        for c in (camera_i, camera_j)
    ]
    return np.array(camera_i["K"]), np.array(camera_j["K"]), compose(poses[1], invert(poses[0]))


def reference_depths(
    prediction: PairPrediction, truth: Truth, images: ImageSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints of image i and of image j (original pixels) and their true depths (match, 2)."""
    k_i, k_j, j_from_i = true_pair(truth, images, prediction.i, prediction.j)
    matches = prediction.keypoint_matches
    assert matches is not None
    ones = np.ones((len(matches), 1))
    rays_i = np.hstack([matches.xy_i, ones]) @ np.linalg.inv(k_i).T
    rays_j = np.hstack([matches.xy_j, ones]) @ np.linalg.inv(k_j).T
    depth = triangulate_depths(rays_i, rays_j, j_from_i)
    point = rays_i * depth[:, :1] @ j_from_i[:, :3].T + j_from_i[:, 3]
    projected = point @ k_j.T
    error = np.linalg.norm(projected[:, :2] / projected[:, 2:] - matches.xy_j, axis=1)
    turned = rays_i @ j_from_i[:, :3].T
    cosine = (turned * rays_j).sum(1) / np.linalg.norm(turned, axis=1) / np.linalg.norm(rays_j, axis=1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    good = (depth > 0).all(1) & (error < MAX_REPROJECTION_PX) & (angle > MIN_ANGLE_DEG)
    return matches.xy_i[good], matches.xy_j[good], depth[good]


@dataclass(frozen=True)
class Sampled:
    """Predicted depth of one image, to be compared at reference points."""

    image: int
    depth: np.ndarray
    confidence: np.ndarray


def log_ratios(
    sampled: Sampled, grid: ImageGrid, xy: np.ndarray, true_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of predicted over true depth, and confidence."""
    at = grid.to_grid(sampled.image, xy).astype(np.float32) - np.float32(0.5)
    x, y = (np.ascontiguousarray(at[None, :, k]) for k in (0, 1))
    found = cv2.remap(np.ascontiguousarray(sampled.depth), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    height, width = sampled.confidence.shape
    column, row = np.rint(at).astype(int).T
    return np.log(found[0] / true_depth), sampled.confidence[row.clip(0, height - 1), column.clip(0, width - 1)]


def compare(prediction: PairPrediction, truth: Truth, images: ImageSet, grid: ImageGrid) -> np.ndarray:
    """Rows (relative depth error, confidence) at the reference points of both images."""
    assert prediction.frame_i is not None and prediction.frame_j is not None
    xy_i, xy_j, depth = reference_depths(prediction, truth, images)
    frames = ((prediction.i, prediction.frame_i), (prediction.j, prediction.frame_j))
    sides = [Sampled(image, f.own[..., 2], f.own_confidence) for image, f in frames]
    rows = [
        log_ratios(side, grid, xy, depth[:, k]) for k, (side, xy) in enumerate(zip(sides, (xy_i, xy_j), strict=True))
    ]
    ratio, confidence = (np.concatenate(column) for column in zip(*rows, strict=True))
    return np.stack([np.abs(np.expm1(ratio - np.median(ratio))), confidence], axis=1)


def compare_true_cameras(
    prediction: PairPrediction, truth: Truth, images: ImageSet, grid: ImageGrid, config: DenseConfig
) -> tuple[np.ndarray, float]:
    """Like `compare` for depth computed with the true cameras, and the CPU seconds it took."""
    i, j = prediction.i, prediction.j
    k_i, k_j, j_from_i = true_pair(truth, images, i, j)
    xy_i, xy_j, depth = reference_depths(prediction, truth, images)
    baseline = np.linalg.norm(j_from_i[:, 3])
    pose = np.column_stack([j_from_i[:, :3], j_from_i[:, 3] / baseline])
    views = [
        GridView(
            grey=load_grey(images, image, grid.size_wh[image]),
            focal_xy=(k[0, 0] * grid.scale[image, 0], k[1, 1] * grid.scale[image, 1]),
            principal_point=(k[0, 2] * grid.scale[image, 0], k[1, 2] * grid.scale[image, 1]),
        )
        for image, k in ((i, k_i), (j, k_j))
    ]
    start = time.process_time()
    dense = dense_depth(stereo_pair(views[0], views[1], pose), depth / baseline, config)
    spent = time.process_time() - start
    sides = [
        Sampled(i, dense.i.depth * baseline, dense.i.confidence),
        Sampled(j, dense.j.depth * baseline, dense.j.confidence),
    ]
    rows = [
        log_ratios(side, grid, xy, depth[:, k]) for k, (side, xy) in enumerate(zip(sides, (xy_i, xy_j), strict=True))
    ]
    ratio, confidence = (np.concatenate(column) for column in zip(*rows, strict=True))
    return np.stack([np.abs(np.expm1(ratio)), confidence], axis=1), spent


def save_picture(prediction: PairPrediction, folder: Path) -> None:
    """Depth of image i in false colours, all of it and where it is trusted."""
    assert prediction.frame_i is not None
    inverse = 1 / prediction.frame_i.own[..., 2]
    trusted = prediction.frame_i.own_confidence > 5
    low, high = np.percentile(inverse[trusted] if trusted.any() else inverse, [1, 99])
    level = (255 * np.clip((inverse - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    colour = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)
    masked = np.where(trusted[..., None], colour, 0).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"depth_{prediction.i:03d}_{prediction.j:03d}.png"), np.hstack([colour, masked]))


def run_variant(name: str, arguments: argparse.Namespace, images: ImageSet, truth: Truth) -> np.ndarray:
    """Print two rows of the table; return the comparisons of all pairs with the true cameras."""
    num = images.num_images
    pairs = np.array([(i, j) for i in range(num) for j in range(i + 1, min(i + arguments.max_step, num - 1) + 1)])
    dense = replace(DenseConfig(), plane_step_px=VARIANTS[name])
    config = ClassicalFrontend(dense=dense, workers=WorkerConfig(num_workers=1))
    predictor = config.open(images, PairList(index=pairs), Store(arguments.cache), SILENT)
    passing, own, true, seconds = [], [], [], []
    for prediction in predictor:
        if prediction.status is not PairStatus.OK:
            continue
        assert prediction.frame_i is not None and prediction.frame_j is not None
        both = [prediction.frame_i.own_confidence, prediction.frame_j.own_confidence]
        passing.append([np.mean([(c > t).mean() for c in both]) for t in (1, 5, 10)])
        own.append(compare(prediction, truth, images, predictor.grid))
        table, spent = compare_true_cameras(prediction, truth, images, predictor.grid, dense)
        true.append(table)
        seconds.append(spent)
        if arguments.pictures:
            save_picture(prediction, arguments.pictures / name)
    share = np.mean(passing, axis=0)
    print(
        f"{name}: {len(own)} of {len(pairs)} pairs, {np.mean(seconds):.2f} CPU s per pair, passing the checks "
        f"{share[0]:.3f} of all pixels (confidence > 5: {share[1]:.3f}, > 10: {share[2]:.3f})"
    )
    for label, tables in (("true cameras", true), ("own cameras", own)):
        error, confidence = np.concatenate(tables).T
        trusted = error[confidence > 5]
        print(
            f"  {label:12s}: depth within 1 %: {(error < 0.01).mean():.3f} of all points, "
            f"{(trusted < 0.01).mean():.3f} of those with confidence > 5 (median {100 * np.median(trusted):.3f} %)"
        )
    return np.concatenate(true)


def print_calibration(table: np.ndarray) -> None:
    """How often depth is right for each range of confidence."""
    for low, high in itertools.pairwise(CONFIDENCE_EDGES):
        error = table[(table[:, 1] >= low) & (table[:, 1] < high), 0]
        if len(error):
            print(
                f"  confidence {low:6.3f} .. {high:6.3f}: {len(error):6d} points, "
                f"<1 %: {(error < 0.01).mean():.3f}, <2 %: {(error < 0.02).mean():.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--max-step", type=int, default=1, help="largest distance of paired images in their order")
    parser.add_argument("--pictures", type=Path, help="folder for depth maps as PNG")
    parser.add_argument("--cache", type=Path, help="keep intermediate results; dense times then mean nothing")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    images, truth = load_image_set(arguments.photos), json.loads(arguments.truth.read_text())
    for name in VARIANTS:
        print_calibration(run_variant(name, arguments, images, truth))


if __name__ == "__main__":
    main()
