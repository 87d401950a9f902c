"""Reported standard deviations beside true errors, on rendered scenes of five kinds.

    python benchmarks/uncertainty.py [--seeds 6] [--kinds nadir-flat ...] [--work WORK]

For every scene the photographs are rendered, reconstructed from the JPEGs alone, and aligned with the truth by the
similarity that the deviations are defined against. Per kind and quantity: how many errors lie within one and two
standard deviations, and the median of error over deviation; first with the former formula (the inverse normal equations
times the variance of the residuals), then with what is reported now.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import focal_rows, principal_point_rows
from anchorsfm.colmap.covariance import intrinsics_covariances
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import AnchorSfMError
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.synthetic import GroundConfig, LensConfig, SceneConfig, SyntheticScene, make_scene, write_photographs
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.linearised import gauge_directions, linearise, normal_equations, solve
from anchorsfm.tracks.residuals import residual_variance_px2
from anchorsfm.tracks.uncertainty import ModelUncertainty, estimate_uncertainty

MILD = (None, ("SIMPLE_RADIAL", (-0.08,)), ("RADIAL", (-0.15, 0.03)))
STRONG = (None, ("RADIAL", (-0.12, 0.01)), ("OPENCV", (-0.2, 0.04, 0.0008, -0.0006)))
KINDS: dict[str, dict[str, Any]] = {
    "nadir-flat": {"num_images": 9, "ground": GroundConfig()},
    "nadir-relief": {"num_images": 9, "ground": GroundConfig(relief=0.3)},
    "oblique-plane": {"num_images": 8, "arc_deg": 90.0, "ground": GroundConfig(tilt_deg=40)},
    "wide": {"num_images": 8, "focal": 0.5},
    "telephoto": {"num_images": 8, "focal": 2.5, "arc_deg": 40.0, "jitter": 0.3, "radius_m": 4.2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--work", type=Path, help="keep photographs and results here (default: a temporary folder)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-uncertainty-"))
    rows: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    spent, adjusting, registered = 0.0, 0.0, 0
    for kind in args.kinds:
        for seed in range(args.seeds):
            scene = make_scene(configuration(kind, seed))
            folder = work / f"{kind}-{seed}"
            if not (folder / "truth.json").exists():
                write_photographs(scene, folder)
            try:
                config = PipelineConfig(dense=False, mapper="tracks")
                run = reconstruct(folder / "images", folder / "out", config)
            except AnchorSfMError as problem:
                print(f"{kind} {seed}: {problem}")
                continue
            registered += 1
            adjusting += sum(stage.cpu_s for stage in run.report.stages if stage.stage == "adjustment")
            before = time.process_time()
            uncertainty = estimate_uncertainty(run.adjusted[0])
            spent += time.process_time() - before
            for quantity, values in compare(run.adjusted[0], uncertainty, scene).items():
                rows[kind, quantity].append(values)
                rows["all", quantity].append(values)
            sys.stdout.flush()
    print(f"{registered} scenes; adjustment {adjusting:.0f} CPU s, {spent:.0f} of them for deviations\n")
    columns = ("<= 1 sigma", "<= 2 sigma", "error / sigma")
    names = [f"{when}: {column}" for when in ("before", "now") for column in columns]
    print("| scenes | quantity | number | " + " | ".join(names) + " |")
    print("|---" * 9 + "|")
    for (kind, quantity), parts in sorted(rows.items()):
        error, former, now = np.concatenate(parts, axis=1)
        cells = []
        for sigma in (former, now):
            cells += [f"{(error <= k * sigma).mean():.0%}" for k in (1, 2)] + [f"{np.median(error / sigma):.2f}"]
        print(f"| {kind} | {quantity} | {len(error)} | " + " | ".join(cells) + " |")
    if args.work is None:
        shutil.rmtree(work)


def configuration(kind: str, seed: int) -> SceneConfig:
    """Every third scene is undistorted, every second has its principal point off the centre; some flights are calm."""
    lens = (STRONG if kind == "wide" else MILD)[seed % 3]
    calm = {"jitter": 0.5} if kind == "nadir-flat" and seed >= 3 else {}
    return SceneConfig(
        size_wh=(480, 360),
        lens=None if lens is None else LensConfig(camera_model=lens[0], params=lens[1]),
        seed=100 + seed,
        principal_point_offset_px=(3.0, -2.5) if seed % 2 else (0.0, 0.0),
        **(KINDS[kind] | calm),
    )


def compare(result: AdjustResult, uncertainty: ModelUncertainty, scene: SyntheticScene) -> dict[str, np.ndarray]:
    """Rows (error, former deviation, deviation) of every quantity that was estimated."""
    model, truth = result.model, scene.camera(int(result.model.image_index[0]))
    assert uncertainty.camera_params[0] is not None, "nothing determines the camera"
    camera, now = model.cameras[0], np.array(uncertainty.camera_params[0])
    former_params, former_position, former_rotation = former(result)
    position, rotation_deg = pose_errors(model.cam_from_world, scene.cam_from_world[model.image_index])
    rows = {
        "position": np.stack([position, former_position, uncertainty.position]),
        "rotation": np.stack([rotation_deg, former_rotation, uncertainty.rotation_deg]),
    }

    def of_params(name: str, own: list[int], true: list[int]) -> None:
        error = np.abs(np.array(camera.params)[own] - np.array(truth.params)[true])
        if now[own].all():
            rows[name] = np.stack([error, former_params[own], now[own]])

    of_params("focal length", focal_rows(camera)[:1], focal_rows(truth)[:1])
    of_params("principal point", principal_point_rows(camera), principal_point_rows(truth))
    if has_k1(camera) and has_k1(truth) and ("FISHEYE" in camera.model) == ("FISHEYE" in truth.model):
        first, true = max(principal_point_rows(camera)) + 1, max(principal_point_rows(truth)) + 1
        of_params("k1", [first], [true])
    return rows


def has_k1(camera: Camera) -> bool:
    return len(camera.params) > max(principal_point_rows(camera)) + 1


def former(result: AdjustResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deviations of the camera parameters, positions and rotations (degrees) by noise that is alike everywhere."""
    model, variance = result.model, residual_variance_px2(result.model)
    covariance = intrinsics_covariances(model, result.options, result.held, variance)[0]
    assert covariance is not None, "nothing determines the camera"
    lin = linearise(model, result.options.loss_scale_px)
    once = replace(lin, weight=np.sqrt(lin.weight))  # Ceres' covariance is that of the reweighted problem
    free = np.flatnonzero(np.concatenate([np.ones(6 * len(model.image_index)), np.diag(covariance) > 0]))
    equations = normal_equations(once, free, np.ones(len(lin.point), bool))
    poses = 6 * len(model.image_index)
    directions = gauge_directions(model.cam_from_world)
    directions /= np.sqrt((directions**2 / np.diag(equations.hessian)[:poses, None]).sum(axis=0))
    equations.hessian[:poses, :poses] += directions @ directions.T
    spread = np.diag(solve(equations.hessian, np.eye(len(free))))[:poses]
    own = variance * np.maximum(spread - _of_gauge(equations.hessian, directions, poses), 0).reshape(-1, 6)
    return np.sqrt(np.diag(covariance)), np.sqrt(own[:, 3:].sum(1)), np.degrees(np.sqrt(own[:, :3].sum(1)))


def _of_gauge(hessian: np.ndarray, directions: np.ndarray, poses: int) -> np.ndarray:
    """Diagonal of H^-1 G G^T H^-1: what the added constraints contribute to the inverse."""
    wide = np.zeros((len(hessian), directions.shape[1]))
    wide[:poses] = directions
    return (solve(hessian, wide)[:poses] ** 2).sum(axis=1)


def pose_errors(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of positions (units of the model) and rotations (degrees) after the similarity that makes both least."""
    centres, true_centres = camera_centres(found), camera_centres(truth)
    middle, true_middle = centres.mean(0), true_centres.mean(0)
    size = np.sqrt(((centres - middle) ** 2).sum(1).mean())
    scale = size / np.sqrt(((true_centres - true_middle) ** 2).sum(1).mean())
    u, _, vt = np.linalg.svd(np.einsum("nji,njk->ik", found[:, :, :3], truth[:, :, :3]))
    start = u @ vt

    def errors(x: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(x[:3]).as_matrix() @ start
        moved = scale * np.exp(x[3]) * (true_centres - true_middle) @ turn.T + middle + size * x[4:]
        turned = Rotation.from_matrix(found[:, :, :3] @ np.swapaxes(truth[:, :, :3] @ turn.T, 1, 2)).as_rotvec()
        return np.concatenate([centres - moved, size * turned], axis=1)

    def flat(x: np.ndarray) -> np.ndarray:
        return errors(x).ravel()

    best = errors(least_squares(flat, np.zeros(7)).x)
    return np.linalg.norm(best[:, :3], axis=1), np.degrees(np.linalg.norm(best[:, 3:], axis=1) / size)


if __name__ == "__main__":
    main()
