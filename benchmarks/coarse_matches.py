"""Observations at the precision of a network's grid, with and without sub-pixel refinement in the photographs.

    python benchmarks/coarse_matches.py [--work WORK] [--images 10] [--matches points|dense] [--size 2048 1536]

Photographs of a synthetic scene are rendered (once, kept in WORK) and matched by its exact depth; matches are
rounded to a grid of 512 pixels, 5 % are wrong. "points" are surface points seen in all images, so that every image
sees a point in the same grid pixel in all pairs; "dense" starts from another grid in every pair, so that keypoints
have to be made of the matches first. From cameras that are 0.3 degrees and 2 cm off, the tracks are triangulated and
adjusted as they are, and after refinement.

The error of an observation is its distance from where its photograph shows the surface point that the reference
observation of its track shows. Poses are compared with the truth after a similarity fitted to the camera centres.
CPU seconds are those of this process with one thread.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anchorsfm.geometry.transforms import camera_centres, fit_similarity, rotation_angle_deg
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene, write_photographs
from anchorsfm.tracks.adjust import adjust_model
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig, SparsifyConfig, SubpixelConfig
from anchorsfm.tracks.sparsify import sparsify
from anchorsfm.tracks.subpixel import ObservationStatus, SubpixelResult, refine_observations

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from coarse_scene import coarse_matches, dense_matches, errors_against_reference, photographs, true_model
from point_scene import perturb

GRID_LONG_SIDE = 512
UNCERTAINTY = {"points": 0.5, "dense": 0.75}
"""Standard deviation of an observation in grid pixels: rounding, and merging of keypoints."""


@dataclass(frozen=True, kw_only=True)
class PoseError:
    """Medians over the images."""

    rotation_deg: float
    position_m: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep the photographs here (default: a temporary folder)")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(2048, 1536))
    parser.add_argument("--points-per-image", type=int, default=400)
    parser.add_argument("--matches", choices=("points", "dense"), default="points")
    parser.add_argument("--without-model", action="store_true", help="refine without knowing any camera")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scene = make_scene(SceneConfig(num_images=args.images, size_wh=tuple(args.size), arc_deg=70.0, seed=5))
    with tempfile.TemporaryDirectory(prefix="anchorsfm-benchmark-") as temporary:
        images = rendered(scene, args.work or Path(temporary))
        run(scene, images, args)


def rendered(scene: SyntheticScene, work: Path) -> ImageSet:
    """The photographs, rendered unless they are there."""
    config = scene.config
    folder = work / f"{config.num_images}-{config.size_wh[0]}x{config.size_wh[1]}-{config.arc_deg:g}-{config.seed}"
    if not (folder / "truth.json").exists():
        start = time.process_time()
        write_photographs(scene, folder)
        print(f"rendered {scene.num_images} photographs in {time.process_time() - start:.1f} CPU s")
    return photographs(scene, folder / "images")


def run(scene: SyntheticScene, images: ImageSet, args: argparse.Namespace) -> None:
    pixel_px = max(args.size) / GRID_LONG_SIDE
    tracks = build_tracks(grid_matches(scene, images, args, pixel_px), scene.num_images)
    start = perturb(true_model(scene), degrees=0.3, distance=0.02, focal=1.02)
    begin = time.process_time()
    result = refine_observations(
        tracks,
        images,
        SubpixelConfig(),
        uncertainty_px=np.full(scene.num_images, UNCERTAINTY[args.matches] * pixel_px),
        model=None if args.without_model else start,
    )
    seconds = time.process_time() - begin
    print(f"tracks: {tracks.num_points}, observations: {len(tracks.obs_point)}, refinement: {seconds:.1f} CPU s")
    print({status.name.lower(): int((result.status == status).sum()) for status in ObservationStatus})
    print_observation_errors(scene, tracks, result)
    print("\n| observations | tracks | rotation error deg | position error mm | focal error px | CPU s |")
    print("|---|---|---|---|---|---|")
    coarse = adjusted(scene, start, tracks, pixel_px, "grid")
    refined = adjusted(scene, start, result.tracks, 1.0, "refined")
    print(f"\nrotation error / {coarse.rotation_deg / refined.rotation_deg:.1f}", end=", ")
    print(f"position error / {coarse.position_m / refined.position_m:.1f}")


def grid_matches(scene: SyntheticScene, images: ImageSet, args: argparse.Namespace, pixel_px: float) -> KeypointMatches:
    if args.matches == "points":
        return coarse_matches(scene, pixel_px=pixel_px, points_per_image=args.points_per_image)
    dense = dense_matches(scene, pixel_px=pixel_px)
    begin = time.process_time()
    sparse = sparsify(
        dense, SparsifyConfig(), pixel_px=np.full(images.num_images, pixel_px), size_wh=images.size_wh
    ).matches
    print(f"{len(dense.image_i)} matches -> {len(sparse.image_i)}: {time.process_time() - begin:.1f} CPU s")
    return sparse


def print_observation_errors(scene: SyntheticScene, tracks: Tracks, result: SubpixelResult) -> None:
    """Errors of the refined observations, before and after."""
    references = np.flatnonzero(result.status == ObservationStatus.REFERENCE)
    xy = tracks.obs_xy.copy()
    xy[result.kept] = result.tracks.obs_xy
    moved = Tracks(obs_point=tracks.obs_point, obs_image=tracks.obs_image, obs_xy=xy)
    before, visible = errors_against_reference(scene, tracks, references)
    after, _ = errors_against_reference(scene, moved, references)
    others = visible & (result.status != ObservationStatus.REFERENCE)
    refined = visible & (result.status == ObservationStatus.REFINED)
    print("\n| observation error px | median | 90 % | 99 % | number |")
    print("|---|---|---|---|---|")
    for name, error in (("grid", before[others]), ("refined", after[refined])):
        cells = " | ".join(f"{value:.3f}" for value in np.percentile(error, [50, 90, 99]))
        print(f"| {name} | {cells} | {len(error)} |")


def adjusted(
    scene: SyntheticScene, start: Reconstruction, tracks: Tracks, working_scale: float, name: str
) -> PoseError:
    """Triangulate, adjust, compare with the truth, print a row."""
    begin = time.process_time()
    scales = np.full(len(start.image_index), working_scale)
    model = adjust_model(start, tracks, AdjustConfig(), working_scale=scales).model
    seconds = time.process_time() - begin
    error = pose_error(scene, model)
    focal_px = abs(model.cameras[0].params[0] - scene.focal_px[0])
    cells = f"{error.rotation_deg:.5f} | {1000 * error.position_m:.4f} | {focal_px:.3f} | {seconds:.1f}"
    print(f"| {name} | {len(model.points)} | {cells} |")
    return error


def pose_error(scene: SyntheticScene, model: Reconstruction) -> PoseError:
    truth = scene.cam_from_world[model.image_index]
    found, wanted = camera_centres(model.cam_from_world), camera_centres(truth)
    scale, true_from_found = fit_similarity(found, wanted)
    moved = scale * found @ true_from_found[:, :3].T + true_from_found[:, 3]
    rotation = model.cam_from_world[:, :, :3] @ true_from_found[:, :3].T @ np.swapaxes(truth[:, :, :3], 1, 2)
    return PoseError(
        rotation_deg=float(np.median(rotation_angle_deg(rotation))),
        position_m=float(np.median(np.linalg.norm(moved - wanted, axis=1))),
    )


if __name__ == "__main__":
    main()
