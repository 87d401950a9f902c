"""The alignment where it used to be wrong without a word, before and after, on scenes with known truth.

    python benchmarks/robustness.py [--seeds 0 1 2] [--what focal known scale resized] [--solvers second-order adam]

focal:   short and long lenses, exact and noisy predictions, cameras further away the longer the lens; "before" believes
         focal lengths of .43 to 3.03 x the longer side, which used to be built in
known:   the same with the true focal lengths given and held
scale:   three of five exact poses given and held, in other units; "before" works in those units, as it used to
resized: one of five pictures at half the size, all with one camera; "before" shares the focal length in grid pixels

Rotation (deg), focal length (worst ratio, percent) and AUC@1 over pairs are medians over seeds.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from anchorsfm.align.config import AlignConfig, ReferenceCompat, Solver
from anchorsfm.align.scene import align_scene
from anchorsfm.evaluation.poses import evaluate_poses
from anchorsfm.io.store import Store
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene, build_scene_graph
from anchorsfm.scene.alignment import AlignmentResult, KnownImage
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.poses import PoseSet
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic.oracle import OracleNoise, SyntheticFrontend, SyntheticPredictor, image_set
from anchorsfm.synthetic.scenes import SceneConfig, SyntheticScene, make_scene

FOCALS = (0.4, 0.9, 2, 3, 4, 6, 8, 10)
FORMER_RANGE = (0.5 / (2 * np.tan(np.pi / 6)), 3.5 / (2 * np.tan(np.pi / 6)))
NOISE = {"exact": OracleNoise.none(), "noisy": OracleNoise()}
SCALES = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6)
FORMER_UNITS = ReferenceCompat(raw_units=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--solvers", nargs="+", choices=[s.value for s in Solver], default=[s.value for s in Solver])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    for what in arguments.what:
        print(f"\n{what}\n")
        TABLES[what](arguments)


Scores = tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]
"""Of both variants."""


def focal_table(arguments: argparse.Namespace, *, is_known: bool = False) -> None:
    print("| predictions | focal / side | rotation before | after | focal % before | after | AUC@1 before | after |")
    print("|---|---|---|---|---|---|---|---|")
    for name, noise in NOISE.items():
        for focal in FOCALS:
            both: Scores = ([], [])
            for seed in arguments.seeds:
                scene = make_scene(SceneConfig(num_images=6, focal=focal, radius_m=3 * focal / 0.9, seed=seed))
                for scores, focal_range in zip(both, (FORMER_RANGE, GraphConfig().focal_range), strict=True):
                    observed, predictor = observe(scene, noise, GraphConfig(focal_range=focal_range))
                    truth = truth_of(scene, predictor)
                    given = {
                        k: KnownImage(focal_px=float(f), freeze_intrinsics=True) for k, f in enumerate(truth.focal_px)
                    }
                    scores.append(score(align_scene(observed, known=given if is_known else None), truth))
            print(f"| {name} | {focal} | {_columns(*both)} |", flush=True)


def known_table(arguments: argparse.Namespace) -> None:
    focal_table(arguments, is_known=True)


def scale_table(arguments: argparse.Namespace) -> None:
    print("| solver | units | rotation before | after | focal % before | after | AUC@1 before | after |")
    print("|---|---|---|---|---|---|---|---|")
    for solver in map(Solver, arguments.solvers):
        for scale in SCALES:
            both: Scores = ([], [])
            for seed in arguments.seeds:
                scene = make_scene(SceneConfig(num_images=5, seed=seed))
                observed, predictor = observe(scene, OracleNoise(), GraphConfig())
                truth = truth_of(scene, predictor)
                given = {
                    k: KnownImage(cam_from_world=_scaled(truth.cam_from_world[k], scale), freeze_pose=True)
                    for k in range(3)
                }
                for scores, reference in zip(both, (FORMER_UNITS, ReferenceCompat()), strict=True):
                    config = AlignConfig(solver=solver, reference=reference)
                    scores.append(score(align_scene(observed, config, known=given), truth))
            print(f"| {solver} | {scale:g} | {_columns(*both)} |", flush=True)


def resized_table(arguments: argparse.Namespace) -> None:
    print("| solver | rotation before | after | focal % before | after | AUC@1 before | after |")
    print("|---|---|---|---|---|---|---|")
    for solver in map(Solver, arguments.solvers):
        both: Scores = ([], [])
        for seed in arguments.seeds:
            scene = make_scene(SceneConfig(num_images=5, seed=seed))
            observed, predictor = observe(scene, OracleNoise(), GraphConfig(), halved=(4,))
            truth = truth_of(scene, predictor)
            shared = np.zeros(5, np.int64)
            for scores, side in zip(both, (np.ones(5), None), strict=True):
                config = AlignConfig(solver=solver)
                scores.append(score(align_scene(observed, config, camera_index=shared, long_side_px=side), truth))
        print(f"| {solver} | {_columns(*both)} |", flush=True)


TABLES = {"focal": focal_table, "known": known_table, "scale": scale_table, "resized": resized_table}


def observe(
    scene: SyntheticScene, noise: OracleNoise, config: GraphConfig, halved: tuple[int, ...] = ()
) -> tuple[ObservedScene, SyntheticPredictor]:
    """Predictions of all pairs, condensed."""
    count = scene.num_images
    pairs = PairList(index=np.array([(i, j) for i in range(count) for j in range(i + 1, count)]))
    frontend = SyntheticFrontend(scene=scene, noise=noise, halved=halved)
    predictor = frontend.open(image_set(scene), pairs, Store(None), SILENT)
    return build_scene_graph(count, predictor, predictor.grid, config), predictor


def truth_of(scene: SyntheticScene, predictor: SyntheticPredictor) -> PoseSet:
    return PoseSet(
        names=scene.names,
        cam_from_world=scene.cam_from_world,
        focal_px=predictor.focal_grid_px,
        size_wh=predictor.grid.size_wh,
    )


def score(results: Sequence[AlignmentResult], truth: PoseSet) -> tuple[float, float, float]:
    """Median rotation error (deg), worst focal length error (percent), AUC@1."""
    result = results[0]
    names = tuple(truth.names[k] for k in result.image_index)
    size_wh = truth.size_wh[result.image_index]
    found = PoseSet(names=names, cam_from_world=result.cam_from_world, focal_px=result.focal_px, size_wh=size_wh)
    figures = evaluate_poses(found, truth)
    worst = np.abs(np.log(result.focal_px / truth.focal_px[result.image_index])).max()
    return figures.median_rotation_deg, 100 * float(np.expm1(worst)), float(figures.auc[0])


def _columns(before: Sequence[tuple[float, ...]], after: Sequence[tuple[float, ...]]) -> str:
    medians = np.median(before, axis=0), np.median(after, axis=0)
    return " | ".join(f"{medians[0][k]:.3f} | {medians[1][k]:.3f}" for k in range(3))


def _scaled(cam_from_world: np.ndarray, scale: float) -> np.ndarray:
    return np.concatenate([cam_from_world[:, :3], scale * cam_from_world[:, 3:]], axis=1)


if __name__ == "__main__":
    main()
