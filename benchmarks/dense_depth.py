"""Dense depth of the classical front end against depth triangulated with the true cameras.

    python benchmarks/dense_depth.py PHOTOS TRUTH.json [--max-step 1] [--pictures FOLDER]

TRUTH.json maps file names to {"R_cam_from_world", "t_cam_from_world", "K"} (COLMAP pixels). Pairs are neighbours in the
order of the names. Reference depths come from verified keypoint matches, triangulated with the true cameras; each
pair's predicted depth is brought to the true scale by one factor (the median). They lie on texture, so the figures are
optimistic for flat areas. CPU seconds are those of this process with one thread.
"""

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig, WorkerConfig
from anchorsfm.frontend.classical.predictor import ClassicalPredictor
from anchorsfm.frontend.classical.rays import triangulate_depths
from anchorsfm.geometry.transforms import compose, invert
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction, PairStatus
from anchorsfm.scene.progress import SILENT

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


def compare(prediction: PairPrediction, truth: Truth, images: ImageSet, predictor: ClassicalPredictor) -> np.ndarray:
    """Rows (relative depth error, confidence) at the reference points of both images."""
    assert prediction.frame_i is not None and prediction.frame_j is not None
    xy_i, xy_j, depth = reference_depths(prediction, truth, images)
    log_ratio, confidence = [], []
    for image, xy, true_depth, frame in (
        (prediction.i, xy_i, depth[:, 0], prediction.frame_i),
        (prediction.j, xy_j, depth[:, 1], prediction.frame_j),
    ):
        grid = predictor.grid.to_grid(image, xy).astype(np.float32) - np.float32(0.5)
        own_depth = np.ascontiguousarray(frame.own[..., 2])
        at = cv2.remap(own_depth, grid[None, :, 0], grid[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        log_ratio.append(np.log(at[0] / true_depth))
        row, column = np.rint(grid[:, ::-1]).astype(int).T
        height, width = frame.own_confidence.shape
        confidence.append(frame.own_confidence[row.clip(0, height - 1), column.clip(0, width - 1)])
    ratio = np.concatenate(log_ratio)
    return np.stack([np.abs(np.expm1(ratio - np.median(ratio))), np.concatenate(confidence)], axis=1)


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
    """Print one row of the table; return the rows of `compare` of all pairs."""
    num = images.num_images
    pairs = np.array([(i, j) for i in range(num) for j in range(i + 1, min(i + arguments.max_step, num - 1) + 1)])
    config = ClassicalFrontend(
        dense=replace(DenseConfig(), plane_step_px=VARIANTS[name]), workers=WorkerConfig(num_workers=1)
    )
    start = time.process_time()
    predictor = config.open(images, PairList(index=pairs), Store(arguments.cache), SILENT)
    opened = time.process_time() - start
    start, count, trusted, errors = time.process_time(), 0, [], []
    spent = 0.0
    for prediction in predictor:
        spent += time.process_time() - start
        if prediction.status is PairStatus.OK:
            assert prediction.frame_i is not None and prediction.frame_j is not None
            count += 1
            both = [prediction.frame_i.own_confidence, prediction.frame_j.own_confidence]
            trusted.append([np.mean([(c > t).mean() for c in both]) for t in (1, 5, 10)])
            errors.append(compare(prediction, truth, images, predictor))
            if arguments.pictures:
                save_picture(prediction, arguments.pictures / name)
        start = time.process_time()
    table = np.concatenate(errors)
    error, confidence = table.T
    share = np.mean(trusted, axis=0)
    print(
        f"{name:8s} {count:3d}/{len(pairs)} pairs  set {opened:6.1f} s  pair {spent / max(count, 1):5.2f} s CPU  "
        f"passing checks {share[0]:.3f} (conf > 5: {share[1]:.3f}, > 10: {share[2]:.3f})  "
        f"depth <1 %: {(error < 0.01).mean():.3f} of all, {(error < 0.01)[confidence > 5].mean():.3f} of conf > 5; "
        f"median {100 * np.median(error[confidence > 5]):.3f} %"
    )
    return table


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
