"""Both solvers of the sparse global alignment on the same scenes with known truth, in one process and one thread.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 \
        python benchmarks/alignment.py ORACLE [--scenes n10 n30 ...] [--seeds 100 101 102] [--cache FOLDER]

ORACLE is a Python file with `make_scene(num_images, pairs, seed, hw, **noise)`, a room with known cameras and the
predictions and matches a two-view network would make of it. Condensed scenes are kept in the cache folder. Prints one
JSON line for every run and a table of medians over seeds.

Alignment time is CPU time of `align` alone, after one run on a small scene that compiles kernels.
"""

import argparse
import importlib.util
import json
import pickle
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from anchorsfm.align.config import AlignConfig, Solver
from anchorsfm.align.run import align
from anchorsfm.evaluation.poses import evaluate_poses
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene, build_scene_graph, select_component
from anchorsfm.observe.tree import build_tree
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus, Pointmaps
from anchorsfm.scene.poses import PoseSet

HEIGHT, WIDTH = 384, 512
LOOP = [(0, 29), (0, 28), (1, 29), (1, 28), (0, 27), (2, 29)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of scene."""

    num_images: int
    pairs: str
    arc_deg: float = 360.0
    shared: bool = False
    offset_share: float = 0.0
    """Distance of the true principal points from the middle, as a share of the width."""
    noise: tuple[tuple[str, float], ...] = ()


CASES = {
    "n10": Case(num_images=10, pairs="complete", arc_deg=60.0),
    "n30": Case(num_images=30, pairs="swin-5-noncyclic+loop"),
    "n100": Case(num_images=100, pairs="logwin-6"),
    "n10-shared": Case(num_images=10, pairs="complete", arc_deg=60.0, shared=True),
    "n30-shared": Case(num_images=30, pairs="swin-5-noncyclic+loop", shared=True),
    "n10-low-parallax": Case(num_images=10, pairs="complete", arc_deg=12.0),
    "n30-offset1": Case(num_images=30, pairs="swin-5-noncyclic+loop", offset_share=0.01),
    "n30-offset3": Case(num_images=30, pairs="swin-5-noncyclic+loop", offset_share=0.03),
}


def load_oracle(path: Path) -> ModuleType:
    """The module that makes scenes."""
    spec = importlib.util.spec_from_file_location("oracle", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the solvers get, and the truth."""

    observed: ObservedScene
    truth: PoseSet
    shared: bool


def make_scene(oracle: ModuleType, case: Case, seed: int) -> Scene:
    """Predictions of the oracle, condensed.

    Principal points off the middle: matches and pointmaps stay as they are but pixel coordinates shift, as if the
    pictures had been cropped unevenly, and matches that leave the picture are dropped.
    """
    pairs: Any = case.pairs
    if pairs.endswith("+loop"):
        pairs = oracle.make_pair_list(case.num_images, pairs.removesuffix("+loop")) + LOOP
    made = oracle.make_scene(
        case.num_images,
        pairs,
        seed,
        (HEIGHT, WIDTH),
        arc_deg=case.arc_deg,
        shared_focal=case.shared,
        **dict(case.noise),
    )
    shift = _shifts(case, seed)
    if case.offset_share:
        made["K"][:, :2, 2] += shift
        _recast(oracle, made)
    grid = ImageGrid(
        size_wh=np.tile([WIDTH, HEIGHT], (case.num_images, 1)),
        scale=np.ones((case.num_images, 2)),
        offset=np.zeros((case.num_images, 2)),
    )
    # the oracle's principal point is half a pixel from the middle unless centres of pixels have integer coordinates
    observed = build_scene_graph(
        case.num_images, _predictions(made), grid, GraphConfig(pixel_centre=0.0, robust_focal=case.offset_share > 0)
    )
    return Scene(observed=select_component(observed, 0), truth=_truth(made), shared=case.shared)


def _shifts(case: Case, seed: int) -> np.ndarray:
    """One offset for a camera that all images share, else one for each image."""
    rng = np.random.default_rng([seed, 7])
    angle = rng.uniform(0, 2 * np.pi, case.num_images)
    return case.offset_share * WIDTH * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _recast(oracle: ModuleType, made: dict[str, Any]) -> None:
    """Depths and matches for changed calibrations, in place."""
    centre = made["cam2w"][:, :3, 3]
    rays = [made["rays"](k) @ made["cam2w"][k, :3, :3].T for k in range(made["n"])]
    made["depth"] = np.stack([made["room"].ray_cast(c, r) for c, r in zip(centre, rays, strict=True)]).astype(
        np.float32
    )
    for i, j in made["pairs"]:
        made["corres"][i, j] = oracle._correspond(made, i, j)


def _predictions(made: dict[str, Any]) -> Iterator[PairPrediction]:
    for i, j in made["pairs"]:
        first, second, found = made["pred"][i, j], made["pred"][j, i], made["corres"][i, j]
        frames = [
            Pointmaps(own=p["X1"], own_confidence=p["C1"], other=p["X2"], other_confidence=p["C2"])
            for p in (first, second)
        ]
        yield PairPrediction(
            i=i,
            j=j,
            status=PairStatus.OK,
            matches=Matches(xy_i=found["xy1"].astype(float), xy_j=found["xy2"].astype(float), confidence=found["conf"]),
            keypoint_matches=None,
            frame_i=frames[0],
            frame_j=frames[1],
        )


def _truth(made: dict[str, Any]) -> PoseSet:
    rotation = np.swapaxes(made["cam2w"][:, :3, :3], 1, 2)
    shift = -np.einsum("vij,vj->vi", rotation, made["cam2w"][:, :3, 3])
    return _pose_set(np.concatenate([rotation, shift[:, :, None]], axis=2), made["K"][:, 0, 0])


def _pose_set(cam_from_world: np.ndarray, focal_px: np.ndarray) -> PoseSet:
    count = len(focal_px)
    return PoseSet(
        names=tuple(f"{k:04d}" for k in range(count)),
        cam_from_world=cam_from_world,
        focal_px=focal_px,
        size_wh=np.tile([WIDTH, HEIGHT], (count, 1)),
    )


def run(scene: Scene, config: AlignConfig) -> tuple[AlignmentResult, dict[str, Any]]:
    """Align, and everything that can be said about it."""
    anchors = build_anchors(scene.observed)
    tree = build_tree(scene.observed.graph, anchors, config.kinematic_mode)
    cameras = np.zeros(scene.observed.graph.num_images, np.int64) if scene.shared else None
    before = _reset_peak()
    start = time.process_time()
    result = align(scene.observed, anchors, tree, config, camera_index=cameras)
    seconds = time.process_time() - start
    estimate = _pose_set(result.cam_from_world, result.focal_px)
    score = evaluate_poses(estimate, scene.truth)
    second_order = config.solver == Solver.SECOND_ORDER  # Adam returns the best state, this one its last
    return result, {
        "solver": config.solver.value,
        "cpu_s": round(seconds, 3),
        "iterations": [len(result.coarse.total), len(result.fine.total)],
        "status": result.fine.status.value,
        "loss_2d": round(float(result.fine.loss[-1 if second_order else result.fine.total.argmin()]), 5),
        "compiled": "compiled" in result.fine.method,
        "rotation_deg": round(score.median_rotation_deg, 4),
        "direction_deg": round(score.median_translation_deg, 4),
        "auc_1": round(float(score.auc[0]), 4),
        "auc_3": round(float(score.auc[1]), 4),
        "auc_5": round(float(score.auc[2]), 4),
        "ate": round(score.ate_rmse, 5),
        "focal_percent": round(100 * score.focal_error, 3),
        "observations": len(result.points),
        "added_bytes": round((_resident("VmHWM") - before) / len(result.points)),
    }


def _reset_peak() -> int:
    """Resident memory, from which the peak of what follows is counted; memory that earlier runs left to be used again
    is not in it, so that only the first run of a process says what a run takes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(name: str) -> int:
    """A figure of /proc/self/status in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oracle", type=Path)
    parser.add_argument("--scenes", nargs="+", choices=sorted(CASES), default=["n10", "n30"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    parser.add_argument("--solvers", nargs="+", choices=[s.value for s in Solver], default=["adam", "second-order"])
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of AlignConfig")
    parser.add_argument("--cache", type=Path, default=Path("alignment-scenes"))
    arguments = parser.parse_args()
    oracle = load_oracle(arguments.oracle)
    settings = {name: json.loads(value) for name, value in (item.split("=") for item in arguments.set)}
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    warm_up(oracle)
    for name in arguments.scenes:
        for seed in arguments.seeds:
            scene = cached_scene(oracle, name, seed, arguments.cache)
            for solver in arguments.solvers:
                config = replace(AlignConfig(solver=Solver(solver)), **settings)
                row = {"scene": name, "seed": seed, **run(scene, config)[1]}
                rows[name, solver].append(row)
                print(json.dumps(row), flush=True)
    print_medians(rows)


def warm_up(oracle: ModuleType) -> None:
    """Compile and load what a first run compiles and loads."""
    small = Case(num_images=3, pairs="complete", arc_deg=20.0)
    for solver in Solver:
        run(make_scene(oracle, small, 0), AlignConfig(solver=solver, niter1=2, niter2=2))


def cached_scene(oracle: ModuleType, name: str, seed: int, folder: Path) -> Scene:
    """A scene from the cache folder, made if need be."""
    path = folder / f"{name}-{seed}.pickle"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(make_scene(oracle, CASES[name], seed)))
    scene: Scene = pickle.loads(path.read_bytes())
    return scene


def print_medians(rows: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """A table of medians over seeds."""
    numbers = ["cpu_s", "loss_2d", "rotation_deg", "direction_deg", "auc_1", "auc_3", "auc_5", "ate", "focal_percent"]
    print("| scene | solver | iterations | " + " | ".join(numbers) + " |")
    print("|---" * (3 + len(numbers)) + "|")
    for (scene, solver), runs in rows.items():
        iterations = "+".join(str(int(np.median([r["iterations"][k] for r in runs]))) for k in range(2))
        values = [f"{np.median([r[n] for r in runs]):.4g}" for n in numbers]
        print(f"| {scene} | {solver} | {iterations} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
