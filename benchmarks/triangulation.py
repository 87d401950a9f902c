"""Robust triangulation of many tracks: ours beside pycolmap's `estimate_triangulation`, which is called track by track.

    python benchmarks/triangulation.py
    python benchmarks/triangulation.py --tracks 20000 --outliers 0.4 --mean-length 12 --device cuda

Cameras on a sphere look at points in a ball; a track is seen by neighbouring cameras. Observations have Gaussian noise,
some are replaced by uniformly random pixels. Correct inliers are the true observations that are called inliers, "in
right points" those of tracks with at least two of them (a lone one agrees with replaced observations by chance), false
inliers the replaced ones; a point that is not found counts as an infinite error. pycolmap is run with its default
error (an angle of 2 degrees) and with the same threshold in pixels as ours. Memory is what the process grows by at most
while triangulating, measured in fresh processes (on a GPU: what PyTorch allocates at most).
"""

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anchorsfm.tracks.triangulate import RayBundle, triangulate

FOCAL_PX, SIZE_PX = 1000.0, 1024.0
MIN_ANGLE_DEG = 1.5
COLUMNS = (
    *("method", "CPU us a track", "correct inliers", "in right points", "false inliers"),
    *("points", "median error", "90%", "95%", "memory"),
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A bundle with its truth."""

    bundle: RayBundle
    xy_px: np.ndarray
    points: np.ndarray
    wrong: np.ndarray
    """(obs,) which observations were replaced."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    points: np.ndarray
    inlier: np.ndarray
    cpu_s: float


def make_poses(num_views: int, rng: np.random.Generator) -> np.ndarray:
    """Cameras about 4 units from the origin, around it, looking roughly at it."""
    angle = np.linspace(0, 2 * np.pi, num_views, endpoint=False)
    height = rng.uniform(-1.2, 1.2, num_views)
    centre = np.stack([4 * np.cos(angle), height, 4 * np.sin(angle)], axis=1) * rng.uniform(0.9, 1.2, (num_views, 1))
    forward = rng.normal(0, 0.15, centre.shape) - centre
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
    return np.concatenate([rotation, -rotation @ centre[:, :, None]], axis=2)


def make_problem(options: argparse.Namespace) -> Problem:
    rng = np.random.default_rng(options.seed)
    poses = make_poses(options.views, rng)
    points = rng.normal(0, 0.5, (options.tracks, 3))
    length = np.clip(2 + rng.poisson(max(options.mean_length - 2, 0), options.tracks), 2, options.views)
    point = np.repeat(np.arange(options.tracks), length)
    place = np.arange(len(point)) - np.repeat(np.cumsum(length) - length, length)
    view = (rng.integers(0, options.views, options.tracks)[point] + place) % options.views
    camera = np.einsum("nij,nj->ni", poses[view][:, :, :3], points[point]) + poses[view][:, :, 3]
    centre = SIZE_PX / 2
    xy_px = FOCAL_PX * camera[:, :2] / camera[:, 2:] + centre + options.noise_px * rng.standard_normal((len(view), 2))
    wrong = rng.random(len(view)) < options.outliers
    xy_px = np.where(wrong[:, None], rng.uniform(0, SIZE_PX, xy_px.shape), xy_px)
    bundle = RayBundle(
        point=point,
        view=view,
        xy=(xy_px - centre) / FOCAL_PX,
        cam_from_world=poses,
        tolerance=np.full(len(view), options.tolerance_px / FOCAL_PX),
    )
    return Problem(bundle=bundle, xy_px=xy_px, points=points, wrong=wrong)


def ours(problem: Problem, device: str, chunk_size: int, repeat: int) -> Answer:
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        result = triangulate(
            problem.bundle, len(problem.points), min_angle_deg=MIN_ANGLE_DEG, device=device, chunk_size=chunk_size
        )
        seconds.append(time.process_time() - start)
    return Answer(points=result.points, inlier=result.inlier, cpu_s=min(seconds))


def colmap(problem: Problem, tolerance_px: float | None) -> Answer:
    """Track by track; inliers by pixels if `tolerance_px` is given, else by COLMAP's default angle."""
    import pycolmap

    options = pycolmap.EstimateTriangulationOptions()
    options.min_tri_angle = np.deg2rad(MIN_ANGLE_DEG)
    options.ransac.random_seed = 0
    if tolerance_px is not None:
        options.residual_type = pycolmap.TriangulationResidualType.REPROJECTION_ERROR
        options.ransac.max_error = tolerance_px
    size = int(SIZE_PX)
    camera = pycolmap.Camera(
        model="SIMPLE_PINHOLE", width=size, height=size, params=[FOCAL_PX, SIZE_PX / 2, SIZE_PX / 2]
    )
    poses = [pycolmap.Rigid3d(pose) for pose in problem.bundle.cam_from_world]
    inlier = np.zeros(len(problem.wrong), bool)
    points = np.full(problem.points.shape, np.nan)
    ends = np.cumsum(np.bincount(problem.bundle.point, minlength=len(points)))
    start = time.process_time()
    begin = 0
    for k, end in enumerate(ends):
        views = problem.bundle.view[begin:end]
        found = pycolmap.estimate_triangulation(
            problem.xy_px[begin:end], [poses[v] for v in views], [camera] * len(views), options
        )
        if found is not None:
            points[k], inlier[begin:end] = found["xyz"], found["inliers"]
        begin = end
    return Answer(points=points, inlier=inlier, cpu_s=time.process_time() - start)


def row(name: str, problem: Problem, answer: Answer, peak: str) -> str:
    error = np.nan_to_num(np.linalg.norm(answer.points - problem.points, axis=1), nan=np.inf)
    correct = answer.inlier & ~problem.wrong
    per_track = np.bincount(problem.bundle.point[correct], minlength=len(error))
    columns = [
        name,
        f"{answer.cpu_s / len(error) * 1e6:.1f}",
        str(int(correct.sum())),
        str(int(per_track[per_track >= 2].sum())),
        str(int((answer.inlier & problem.wrong).sum())),
        str(int(np.isfinite(error).sum())),
        f"{np.median(error):.5f}",
        f"{np.quantile(error, 0.9, method='lower'):.5f}",
        f"{np.quantile(error, 0.95, method='lower'):.5f}",
        peak,
    ]
    return "| " + " | ".join(columns) + " |"


def added_memory_mib(work: Callable[[], object]) -> float:
    """Growth of the resident set of this process (Linux: writing 5 makes the kernel forget the highest mark so far)."""
    ctypes.CDLL(None).malloc_trim(0)  # else freed memory is reused and does not count
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_kib("VmRSS")
    work()
    return (memory_kib("VmHWM") - before) / 1024


def memory_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def measured_peak(options: argparse.Namespace, chunk_size: int) -> str:
    """Peak memory in a fresh process, after a first small call that loads everything."""
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        ours(make_problem(options), options.device, chunk_size, 1)
        return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of-chunk", str(chunk_size)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() + " MiB"


def print_peak(options: argparse.Namespace) -> None:
    problem = make_problem(options)
    few = argparse.Namespace(**{**vars(options), "tracks": 50})
    ours(make_problem(few), options.device, options.peak_of_chunk, 1)
    print(f"{added_memory_mib(lambda: ours(problem, options.device, options.peak_of_chunk, 1)):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=50_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--mean-length", type=float, default=6.0)
    parser.add_argument("--outliers", type=float, default=0.2)
    parser.add_argument("--noise-px", type=float, default=0.5)
    parser.add_argument("--tolerance-px", type=float, default=4.0)
    parser.add_argument("--chunks", type=int, nargs="+", default=[8_192, 65_536], help="observations at a time")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-colmap", action="store_true")
    parser.add_argument("--peak-of-chunk", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak_of_chunk:
        return print_peak(options)
    problem = make_problem(options)
    print(f"{options.tracks} tracks, {len(problem.wrong)} observations, {(~problem.wrong).sum()} of them true")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for chunk_size in options.chunks:
        answer = ours(problem, options.device, chunk_size, options.repeat)
        print(row(f"ours, chunk {chunk_size}", problem, answer, measured_peak(options, chunk_size)), flush=True)
    if not options.without_colmap:
        print(row("pycolmap, 2 deg", problem, colmap(problem, None), ""), flush=True)
        print(row("pycolmap, pixels", problem, colmap(problem, options.tolerance_px), ""), flush=True)


if __name__ == "__main__":
    main()
