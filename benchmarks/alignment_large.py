"""The alignment of a thousand images: a scene generated piece by piece into a folder, then solved from there.

    python benchmarks/alignment_large.py generate ORACLE FOLDER [--images 1000] [--neighbours 10]
    python benchmarks/alignment_large.py solve FOLDER [--solver second-order]

ORACLE is the Python file that `alignment.py` uses. Cameras stand on a loop in a room and look inwards, not quite at its
middle; each image is paired with the next `neighbours` (on average) on the loop that share at least 1,000 matches with
it, as retrieval would do, with 0.5 px noise and 5 % outliers; depths have 1 % smooth errors, focal lengths 2 %. Set
OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 for CPU times that mean something.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from alignment import HEIGHT, WIDTH, load_oracle
from anchorsfm.align.config import AlignConfig, Solver
from anchorsfm.align.run import align
from anchorsfm.evaluation.poses import evaluate_poses
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.observe.tree import build_tree
from anchorsfm.scene.graph import CanonicalView, FallbackTargets, SceneGraph
from anchorsfm.scene.poses import PoseSet

BLOCK = 8
NOISE_PX, OUTLIERS, DEPTH_NOISE, FOCAL_NOISE = 0.4, 0.05, 0.01, 0.02
LEAST_MATCHES = 1000
REACH = 4
"""Pairs are looked for among so many times as many images ahead as are wanted."""


def generate(oracle: ModuleType, folder: Path, count: int, neighbours: int) -> None:
    """Cameras, then one file an image with its depth, then one file an image with its matches to the next images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(100)
    pose, focal = _cameras(oracle, count, rng)
    np.savez(folder / "cameras.npz", pose=pose, focal=focal, bias=FOCAL_NOISE * rng.standard_normal(count))
    write_depths(oracle, folder, pose, focal)
    write_matches(folder, neighbours, pose, focal)


def write_depths(oracle: ModuleType, folder: Path, pose: np.ndarray, focal: np.ndarray) -> None:
    """True depth of every image, and the error of its prediction."""
    room = oracle.Room(np.random.default_rng([100, 0]))
    pixel = np.stack([*np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), np.ones((HEIGHT, WIDTH))], axis=-1)
    centred = pixel - [WIDTH / 2, HEIGHT / 2, 0]
    for k in range(len(pose)):
        ray = centred / [focal[k], focal[k], 1]
        depth = room.ray_cast(pose[k, :, 3], ray @ pose[k, :, :3].T)
        error = oracle.smooth_field(np.random.default_rng([100, 1, k]), (HEIGHT, WIDTH), 64, DEPTH_NOISE)
        np.savez(folder / f"depth{k}.npz", depth=depth.astype(np.float32), error=error.astype(np.float16))


def write_matches(folder: Path, neighbours: int, pose: np.ndarray, focal: np.ndarray) -> None:
    """Matches of every image with the next ones on the loop; where too few are suitable, the next image has more."""
    recent: dict[int, np.ndarray] = {}
    made, reach = 0, REACH * neighbours
    for i in range(len(pose)):
        others, parts = _partners(i, (i + 1) * neighbours - made, reach, recent, folder, pose, focal)
        made += len(others)
        if i >= reach:  # the first ones are needed again at the end of the loop
            recent.pop(i, None)
        np.savez(
            folder / f"matches{i}.npz",
            other=np.array(others, np.int64),
            count=np.array([len(part[2]) for part in parts], np.int64),
            xy_i=np.concatenate([part[0] for part in parts]),
            xy_j=np.concatenate([part[1] for part in parts]),
            confidence=np.concatenate([part[2] for part in parts]),
        )
    print(f"{made} pairs with at least {LEAST_MATCHES} matches")


def _partners(
    i: int,
    wanted: int,
    reach: int,
    depth: dict[int, np.ndarray],
    folder: Path,
    pose: np.ndarray,
    focal: np.ndarray,
) -> tuple[list[int], list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Images within reach with enough matches, and the matches with each; `depth` is filled from files."""
    others, parts = [], []
    for step in range(1, reach + 1):
        j = (i + step) % len(pose)
        for k in (i, j):
            if k not in depth:
                depth[k] = np.load(folder / f"depth{k}.npz")["depth"]
        part = _matches(i, j, depth, pose, focal)
        if len(part[2]) >= LEAST_MATCHES:
            others.append(j)
            parts.append(part)
        if len(others) == wanted:
            break
    if not parts:
        raise SystemExit(f"image {i} shares {LEAST_MATCHES} matches with none of the next {reach}")
    return others, parts


def _cameras(oracle: ModuleType, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """world_from_cam and focal lengths on a loop."""
    angle = 2 * np.pi * np.arange(count) / count
    place = np.stack([3.7 * np.cos(angle), np.full(count, -0.25), 2.9 * np.sin(angle)], axis=1)
    place += 0.15 * rng.standard_normal(place.shape)
    aim = [0, 0.35, 0] + 0.5 * rng.standard_normal((count, 3)) * [1, 0.4, 1]
    pose = [
        oracle.look_at(p, a, np.radians(4) * r)[:3]
        for p, a, r in zip(place, aim, rng.standard_normal(count), strict=True)
    ]
    return np.stack(pose), rng.uniform(0.8, 1.05, count) * WIDTH


def _matches(
    i: int, j: int, depth: dict[int, np.ndarray], pose: np.ndarray, focal: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels around every block of image i that image j sees."""
    rng = np.random.default_rng([100, 2, i, j])
    y, x = np.mgrid[BLOCK // 2 : HEIGHT : BLOCK, BLOCK // 2 : WIDTH : BLOCK].reshape(2, -1)
    x, y = x + rng.integers(-4, 4, len(x)), y + rng.integers(-4, 4, len(y))
    z = depth[i][y, x].astype(float)
    local = np.stack([(x - WIDTH / 2) / focal[i] * z, (y - HEIGHT / 2) / focal[i] * z, z], axis=1)
    other = (local @ pose[i, :, :3].T + pose[i, :, 3] - pose[j, :, 3]) @ pose[j, :, :3]
    exact = focal[j] * other[:, :2] / np.maximum(other[:, 2:], 1e-3) + [WIDTH / 2, HEIGHT / 2]
    found = np.rint(exact + NOISE_PX * rng.standard_normal(exact.shape))
    inside = (other[:, 2] > 0.1) & (found >= 0).all(axis=1) & (found < [WIDTH, HEIGHT]).all(axis=1)
    column, row = np.where(inside[:, None], found, 0).astype(int).T
    inside &= np.abs(depth[j][row, column] / np.maximum(other[:, 2], 1e-3) - 1) < 0.03
    xy_i, xy_j = np.stack([x, y], axis=1)[inside], found[inside]
    confidence = 10 * np.exp(0.4 * rng.standard_normal(len(xy_i)))
    wrong = rng.random(len(xy_i)) < OUTLIERS
    xy_j[wrong] = rng.integers(0, [WIDTH, HEIGHT], (int(wrong.sum()), 2))
    confidence[wrong] *= 0.4
    return xy_i.astype(np.float32), xy_j.astype(np.float32), confidence.astype(np.float32)


def load(folder: Path) -> tuple[ObservedScene, PoseSet]:
    """The condensed scene and the truth."""
    cameras = np.load(folder / "cameras.npz")
    focal, count = cameras["focal"], len(cameras["focal"])
    views = []
    for k in range(count):
        stored = np.load(folder / f"depth{k}.npz")
        depth = stored["depth"] * np.exp(stored["error"].astype(np.float32))
        anchor = np.ascontiguousarray(depth[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK])
        views.append(
            CanonicalView(
                focal_px=float(focal[k] * np.exp(cameras["bias"][k])),
                anchor_depth=anchor,
                relative_depth=depth / anchor.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1),
                confidence=np.broadcast_to(np.float32(5), depth.shape),
            )
        )
    files = [np.load(folder / f"matches{i}.npz") for i in range(count)]
    pairs, counts, parts = _pairs_of(files)
    pair_rows = np.repeat(np.arange(len(pairs)), counts)
    graph = SceneGraph(
        num_images=count,
        pair=pairs,
        score=counts.astype(float),
        match_pair=pair_rows,
        xy_i=np.concatenate([part[0] for part in parts]),
        xy_j=np.concatenate([part[1] for part in parts]),
        confidence=np.concatenate([part[2] for part in parts]),
        is_matching=np.ones(len(pairs), np.int64),
        confirmed=np.ones(len(pairs), bool),
        fallback=FallbackTargets.empty(),
        component=np.zeros(count, np.int64),
    )
    observed = ObservedScene(
        image_index=np.arange(count), graph=graph, views=tuple(views), config=GraphConfig(pixel_centre=0.0)
    )
    rotation = np.swapaxes(cameras["pose"][:, :, :3], 1, 2)
    shift = -np.einsum("vij,vj->vi", rotation, cameras["pose"][:, :, 3])
    return observed, pose_set(np.concatenate([rotation, shift[:, :, None]], axis=2), focal)


def _pairs_of(files: list[Any]) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, ...]]]:
    """Pairs i < j in order, their numbers of matches, and the matches of each."""
    found = []
    for i, file in enumerate(files):
        end = np.cumsum(file["count"])
        xy_i, xy_j, confidence = file["xy_i"], file["xy_j"], file["confidence"]
        for j, last, length in zip(file["other"].tolist(), end.tolist(), file["count"].tolist(), strict=True):
            rows = slice(last - length, last)
            ends = (xy_i[rows], xy_j[rows]) if i < j else (xy_j[rows], xy_i[rows])
            found.append((min(i, j), max(i, j), (*ends, confidence[rows])))
    found.sort(key=lambda item: item[:2])
    return (
        np.array([item[:2] for item in found]),
        np.array([len(item[2][2]) for item in found]),
        [item[2] for item in found],
    )


def pose_set(cam_from_world: np.ndarray, focal_px: np.ndarray) -> PoseSet:
    count = len(focal_px)
    return PoseSet(
        names=tuple(f"{k:04d}" for k in range(count)),
        cam_from_world=cam_from_world,
        focal_px=focal_px,
        size_wh=np.tile([WIDTH, HEIGHT], (count, 1)),
    )


def solve(folder: Path, solver: Solver) -> None:
    """Align and print figures."""
    start = time.process_time()
    observed, truth = load(folder)
    counts = np.bincount(observed.graph.match_pair)
    print(
        f"loaded {len(counts)} pairs with {counts.min()} to {counts.max()} matches, {counts.sum()} in all", flush=True
    )
    config = AlignConfig(solver=solver)
    loaded = time.process_time()
    before = _peak_gib()
    anchors = build_anchors(observed)
    tree = build_tree(observed.graph, anchors, config.kinematic_mode)
    prepared = time.process_time()
    result = align(observed, anchors, tree, config)
    solved = time.process_time()
    score = evaluate_poses(pose_set(result.cam_from_world, result.focal_px), truth)
    figures = {
        "solver": solver.value,
        "load_cpu_s": round(loaded - start, 1),
        "prepare_cpu_s": round(prepared - loaded, 1),
        "align_cpu_s": round(solved - prepared, 1),
        "iterations": [len(result.coarse.total), len(result.fine.total)],
        "status": result.fine.status.value,
        "method": result.fine.method,
        "loss_2d": float(result.fine.loss[-1]),
        "auc_1_3_5": [round(float(value), 4) for value in score.auc[:3]],
        "rotation_deg": score.median_rotation_deg,
        "direction_deg": score.median_translation_deg,
        "ate": score.ate_rmse,
        "focal_percent": 100 * score.focal_error,
        "peak_gib_loaded": round(before, 2),
        "peak_gib": round(_peak_gib(), 2),
    }
    print(json.dumps(figures))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("generate")
    making.add_argument("oracle", type=Path)
    making.add_argument("folder", type=Path)
    making.add_argument("--images", type=int, default=1000)
    making.add_argument("--neighbours", type=int, default=10)
    solving = commands.add_parser("solve")
    solving.add_argument("folder", type=Path)
    solving.add_argument("--solver", choices=[s.value for s in Solver], default="second-order")
    arguments = parser.parse_args()
    if arguments.command == "generate":
        generate(load_oracle(arguments.oracle), arguments.folder, arguments.images, arguments.neighbours)
    else:
        solve(arguments.folder, Solver(arguments.solver))


if __name__ == "__main__":
    main()
