"""How well straight lines at right angles show a focal length, in models of two views and in whole ones.

    python benchmarks/straight_lines.py FOLDER:0,3,6,9 [FOLDER ...] --work WORK [--weights W]

FOLDER holds `images/`, and `gt.json` where poses are known; some images of it, or all. They are reconstructed (with
`--weights` with both detectors); then every two views of the model are adjusted alone, freely and with the focal length
held on a grid, and so is the whole model. At every focal length the line segments of the photographs (OpenCV's LSD) are
held against a frame of three directions at right angles that all photographs share (Coughlan and Yuille, "Manhattan
world", ICCV 1999): the angle between a segment and the direction from its middle to the vanishing point of an axis is
normal, or, with a probability of one half, anything. The frame is found from samples of three segments and refined by
least squares with soft assignments; the focal length is where the log-likelihood is largest, its deviation what the
curvature there says (`curvature`) or what other drawings of the segments give (`bootstrap`). Nothing of this is part of
the program. Focal lengths are given by how far they are from the truth, or from that of the whole model, in percent;
rotations, freely and where the lines say, by their errors in degrees.
"""

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from accuracy import pick
from anchorsfm.colmap.cameras import focal_length_px, focal_rows, principal_point_px, with_focal_length
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.edit import select_points, select_views, with_cameras
from anchorsfm.scene.images import ImageSet
from anchorsfm.tracks.adjust import AdjustResult, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.uncertainty import estimate_uncertainty

SIZE = 1024
"""Long side in pixels of the pictures that segments are looked for in."""
MIN_LENGTH = 0.03
"""Of a segment, as a share of the long side."""
DIRECTION_DEG, END_PX = 0.4, 0.7
"""Deviations of the direction of a segment: what is not exactly straight or at right angles, and of its ends."""
ANYTHING = 0.5
"""Share of segments in any direction."""
GRID = np.exp(np.linspace(math.log(0.72), math.log(1.4), 15))
"""Focal lengths that are tried, over that of the free adjustment."""
SAMPLES, REFINED, DRAWINGS = 200, 4, 8
"""Frames from samples, how many of the best are refined, and drawings of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Line segments of some photographs."""

    ends_px: Float[np.ndarray, "segment 2 2"]
    """From the principal point of their photograph."""
    view: Int[np.ndarray, " segment"]
    sigma: Float[np.ndarray, " segment"]
    """Deviation of the direction in radians."""
    weight: Float[np.ndarray, " segment"]

    def misses(
        self, focal_px: float, rotations: Float[np.ndarray, "view 3 3"], frame: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "segment 3"]:
        """Angles between segments and directions to the vanishing points of the axes (columns of `frame`, world)."""
        axes = (rotations @ frame)[self.view]
        middle, along = self.ends_px.mean(axis=1), np.diff(self.ends_px, axis=1)[:, 0]
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        there = focal_px * axes[:, :2] - middle[:, :, None] * axes[:, 2:]
        across = along[:, 0, None] * there[:, 1] - along[:, 1, None] * there[:, 0]
        return np.arcsin(np.clip(across / (np.linalg.norm(there, axis=1) + 1e-12), -1, 1))

    def densities(self, miss: Float[np.ndarray, "segment 3"]) -> Float[np.ndarray, "segment 3"]:
        """Of the miss if a segment belongs to an axis, times the share of the axis."""
        sigma = self.sigma[:, None]
        return (1 - ANYTHING) / 3 * np.exp(-0.5 * (miss / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)

    def score(
        self, focal_px: float, rotations: Float[np.ndarray, "view 3 3"], frame: Float[np.ndarray, "3 3"]
    ) -> float:
        """Log-likelihood."""
        density = self.densities(self.misses(focal_px, rotations, frame)).sum(axis=1)
        return float(self.weight @ np.log(ANYTHING / math.pi + density))


def segments_of(images: ImageSet, result: AdjustResult) -> Segments:
    """Those of the photographs of a model."""
    ends, views, sigmas = [], [], []
    for view, image in enumerate(result.model.image_index.tolist()):
        picture = cv2.imread(str(images.path(image)), cv2.IMREAD_GRAYSCALE)
        shrunk = min(1.0, SIZE / max(picture.shape))
        if shrunk < 1:
            picture = cv2.resize(picture, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
        found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(picture)[0].reshape(-1, 2, 2) + 0.5
        length = np.linalg.norm(found[:, 0] - found[:, 1], axis=1)
        kept = length > max(25.0, MIN_LENGTH * max(picture.shape))
        centre = principal_point_px(result.model.cameras[result.model.camera_index[view]])
        ends.append(found[kept] / shrunk - centre)
        views.append(np.full(int(kept.sum()), view))
        sigmas.append(np.hypot(math.radians(DIRECTION_DEG), 2 * END_PX / length[kept]))
    count = sum(map(len, ends))
    return Segments(
        ends_px=np.concatenate(ends),
        view=np.concatenate(views),
        sigma=np.concatenate(sigmas),
        weight=np.ones(count),
    )


def refined(
    lines: Segments, focal_px: float, rotations: Float[np.ndarray, "view 3 3"], frame: Float[np.ndarray, "3 3"]
) -> tuple[float, Float[np.ndarray, "3 3"]]:
    """Log-likelihood and frame at the optimum near a frame."""
    best = lines.score(focal_px, rotations, frame)
    for _ in range(8):
        miss = lines.misses(focal_px, rotations, frame)
        density = lines.densities(miss)
        belongs = density / (ANYTHING / math.pi + density.sum(axis=1, keepdims=True))
        weight = lines.weight[:, None] * belongs / lines.sigma[:, None] ** 2
        turned = [Rotation.from_rotvec(1e-5 * axis).as_matrix() @ frame for axis in np.eye(3)]
        slope = np.stack([(lines.misses(focal_px, rotations, other) - miss) / 1e-5 for other in turned], axis=-1)
        normal = np.einsum("sa,sai,saj->ij", weight, slope, slope) + 1e-6 * np.eye(3)
        step = -np.linalg.solve(normal, np.einsum("sa,sai,sa->i", weight, slope, miss))
        wanted = Rotation.from_rotvec(step).as_matrix() @ frame
        score = lines.score(focal_px, rotations, wanted)
        if score <= best + 1e-4:
            break
        frame, best = wanted, score
    return best, frame


def searched(
    lines: Segments, focal_px: float, rotations: Float[np.ndarray, "view 3 3"], rng: np.random.Generator
) -> Float[np.ndarray, "3 3"]:
    """The best frame of samples: an axis from two segments, one across it from a third."""
    rays = np.concatenate([lines.ends_px, np.full((*lines.ends_px.shape[:2], 1), focal_px)], axis=2)
    normal = np.cross(rays[:, 0], rays[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.einsum("sij,si->sj", rotations[lines.view], normal)
    length = np.linalg.norm(np.diff(lines.ends_px, axis=1)[:, 0], axis=1)
    frames = []
    for _ in range(SAMPLES):
        first, second, third = normal[rng.choice(len(normal), 3, replace=False, p=length / length.sum())]
        axis = np.cross(first, second)
        across = np.cross(axis, third)
        if min(np.linalg.norm(axis), np.linalg.norm(across)) > 0.05:
            axis, across = axis / np.linalg.norm(axis), across / np.linalg.norm(across)
            frame = np.stack([axis, across, np.cross(axis, across)], axis=1)
            frames.append((lines.score(focal_px, rotations, frame), frame))
    frames.sort(key=lambda entry: -entry[0])
    return max((refined(lines, focal_px, rotations, frame) for _, frame in frames[:REFINED]), key=lambda e: e[0])[1]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the lines say."""

    log_focal: float
    """NaN where no focal length within the grid is the best."""
    curvature: float
    """Deviation of the logarithm."""
    bootstrap: float
    gain: float
    """Log-likelihood of the best focal length over that of the three worst."""


def peak(log_focal: Float[np.ndarray, "try"], score: Float[np.ndarray, "try"]) -> tuple[float, float]:
    """Place and deviation of a maximum, from a parabola."""
    best = int(score.argmax())
    if best in (0, len(score) - 1):
        return math.nan, math.nan
    near = slice(best - 1, best + 2)
    second, first, _ = np.polyfit(log_focal[near] - log_focal[best], score[near], 2)
    return float(log_focal[best] - first / (2 * second)), float(1 / math.sqrt(-2 * second))


def focal_of_lines(
    lines: Segments,
    focal_px: Float[np.ndarray, "try"],
    rotations: Sequence[Float[np.ndarray, "view 3 3"]],
    rng: np.random.Generator,
) -> Found:
    """The best of focal lengths, with the rotations that the matches want for each of them."""
    score, frames = np.full(len(focal_px), -np.inf), [np.eye(3)] * len(focal_px)
    for begin in (len(focal_px) // 2, len(focal_px) // 6, 5 * len(focal_px) // 6):
        first = searched(lines, float(focal_px[begin]), rotations[begin], rng)
        for order in (range(begin, len(focal_px)), range(begin, -1, -1)):
            frame = first
            for k in order:
                value, frame = refined(lines, float(focal_px[k]), rotations[k], frame)
                if value > score[k]:
                    score[k], frames[k] = value, frame
    log_focal = np.log(focal_px)
    place, deviation = peak(log_focal, score)
    drawn = []
    for _ in range(DRAWINGS):
        weight = np.bincount(rng.integers(0, len(lines.view), len(lines.view)), minlength=len(lines.view))
        some = replace(lines, weight=weight.astype(float))
        values = [refined(some, float(f), r, m)[0] for f, r, m in zip(focal_px, rotations, frames, strict=True)]
        again, _ = peak(log_focal, np.array(values))
        drawn.append(again if math.isfinite(again) else log_focal[int(np.argmax(values))])
    return Found(
        log_focal=place,
        curvature=deviation,
        bootstrap=float(np.std(drawn)),
        gain=float(score.max() - np.sort(score)[:3].mean()),
    )


def alone(result: AdjustResult, views: list[int], config: AdjustConfig) -> AdjustResult:
    """Some views of a model with the points that at least two of them see, adjusted freely."""
    part = select_views(result.at_optimum, np.array(views))
    part = select_points(part, np.isin(part.tracks.obs_image, part.image_index))
    held = replace(result.held, pose=result.held.pose[views])
    options = replace(result.options, refine_focal=True, refine_principal_point=False)
    return readjust(replace(result, added_points=0), part, config, options=options, held=held)


def with_focal_held(result: AdjustResult, focal_px: float, config: AdjustConfig) -> AdjustResult:
    """Everything else adjusted."""
    cameras = [with_focal_length(camera, focal_px) for camera in result.model.cameras]
    options = replace(result.options, refine_focal=False, max_iterations=2 * result.options.max_iterations)
    return readjust(result, with_cameras(result.model, cameras), config, options=options, held=result.held)


def rotation_error_deg(rotations: Float[np.ndarray, "view 3 3"], names: Sequence[str], truth: dict) -> float:
    """Of the last view against the first; NaN where nothing is known."""
    if not truth:
        return math.nan
    first, last = (np.array(truth[name]["R_cam_from_world"]) for name in (names[0], names[-1]))
    return float(rotation_angle_deg((rotations[-1] @ rotations[0].T @ first @ last.T)[None])[0])


def row(result: AdjustResult, images: ImageSet, expected_px: float, truth: dict, config: AdjustConfig) -> str:
    """What photographs and lines say about one model."""
    camera, rng = result.model.cameras[0], np.random.default_rng(0)
    free_px = focal_length_px(camera)
    deviations = estimate_uncertainty(result).camera_params[0]
    stated = float(np.mean(np.array(deviations)[focal_rows(camera)])) / free_px if deviations else math.nan
    focal_px, middle = free_px * GRID, len(GRID) // 2
    rotations: list[Float[np.ndarray, "view 3 3"]] = [result.model.cam_from_world[:, :, :3]] * len(GRID)
    for order in (range(middle, len(GRID)), range(middle, -1, -1)):
        held = result
        for k in order:
            held = with_focal_held(held, float(focal_px[k]), config)
            rotations[k] = held.model.cam_from_world[:, :, :3]
    found = focal_of_lines(segments_of(images, result), focal_px, rotations, rng)
    names = [images.names[k] for k in result.model.image_index]
    best = int(np.abs(np.log(focal_px) - found.log_focal).argmin()) if math.isfinite(found.log_focal) else middle
    free = result.model.cam_from_world[:, :, :3]
    return (
        f"| {len(result.model.points)} | {100 * math.log(free_px / expected_px):+.1f} | {100 * stated:.1f} | "
        f"{rotation_error_deg(free, names, truth):.2f} | {100 * (found.log_focal - math.log(expected_px)):+.1f} | "
        f"{100 * found.curvature:.1f} | {100 * found.bootstrap:.1f} | {found.gain:.0f} | "
        f"{rotation_error_deg(rotations[best], names, truth):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder with the released weights: use both detectors")
    parser.add_argument("--pairs", type=int, default=15, help="most pairs of a set")
    args = parser.parse_args()
    heads = ("model", "points", "free", "stated", "rotation", "lines", "curvature", "bootstrap", "gain", "rotation")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for entry in args.folders:
        name, _, picked = entry.partition(":")
        photos = pick(Path(name), args.work / entry.replace("/", "_").strip("_"), picked)
        truth = json.loads((photos / "gt.json").read_text()) if (photos / "gt.json").exists() else {}
        config = PipelineConfig(dense=False)
        if args.weights is not None:
            features = replace(config.classical.features, detector="auto")
            config = replace(config, weights=args.weights, classical=replace(config.classical, features=features))
        run = reconstruct(photos / "images", photos / "out", config)
        whole, adjust = run.adjusted[0], config.adjust
        known_px = [view["K"][0][0] for view in truth.values()]
        expected_px = float(np.mean(known_px)) if known_px else focal_length_px(whole.model.cameras[0])
        if len(whole.model.image_index) > 2:
            print(f"| {entry} {row(whole, run.images, expected_px, truth, adjust)}", flush=True)
        pairs = list(itertools.combinations(range(len(whole.model.image_index)), 2))
        for pair in pairs[:: -(-len(pairs) // args.pairs)]:
            part = alone(whole, list(pair), adjust)
            if len(part.model.points) >= adjust.min_observations:
                images = ", ".join(str(k) for k in part.model.image_index)
                print(f"| {entry} {images} {row(part, run.images, expected_px, truth, adjust)}", flush=True)


if __name__ == "__main__":
    main()
