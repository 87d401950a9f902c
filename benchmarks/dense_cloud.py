"""Dense clouds against known depth, beside the fusion this program had before.

    python benchmarks/dense_cloud.py PHOTOS ... [--synthetic 3] [--work WORK] [--pictures FOLDER]

Every set is reconstructed with default settings (depth maps of 512 pixels); then both fusions work on the same depth
maps and the same model, with one thread.

Synthetic sets (`--synthetic N` seeds) are rendered, and their cloud is moved onto the true cameras by a similarity.
"within 1 %": points that lie, along the ray of some camera, within 1 % of the true depth. "covered": pixels (one in 64)
of all views whose surface two (three) cameras see, with a point of the cloud no further away than 1 % of their depth.

PHOTOS holds `images/` and `gt.json` (laser-measured cameras by file name). Reference points are the model's tracks,
triangulated anew with the measured cameras, of reprojection errors below 1.5 pixels and an angle above 2 degrees: they
lie on texture. The cloud is moved onto the measured cameras by a similarity and projected into every image at the size
of the depth maps; at each observation of a reference point the depth of the foremost points in that pixel is compared.
"found": observations whose pixel has a point. Photographs without `gt.json` are only drawn.

"pixels": share of the pixels of all depth maps that are kept. CPU seconds are those of fusing (and of matching, which
the earlier fusion did not do) divided by the pairs that have depth; memory is the rise of the peak over what the
process held before. Both are measured in a child process.

The earlier fusion: a voxel kept its most confident point; a point that another, more confident view saw through was
dropped; depth came straight from the alignment.
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from anchorsfm.dense.cells import FusedCloud
from anchorsfm.dense.cloud import fuse
from anchorsfm.dense.maps import CleanView, DepthMaps
from anchorsfm.dense.pinhole import grid_colours
from anchorsfm.dense.views import DenseView, dense_view
from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.geometry.transforms import camera_centres, fit_similarity, transform
from anchorsfm.io.store import Store
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene, write_photographs
from anchorsfm.synthetic.scenes import cast_pixels, project, rays

BACKGROUND = (46, 58, 82)
MAX_COMPARED = 50_000
"""Points of a synthetic scene that are compared, evenly chosen."""


@dataclass(frozen=True)
class Fused:
    """A cloud and what it cost."""

    xyz: np.ndarray
    rgb: np.ndarray
    pixels: float
    cpu_s: float
    memory_mib: float


# ----------------------------------------------------------------------------------------------------- the two fusions


def fuse_now(maps: DepthMaps) -> tuple[np.ndarray, np.ndarray, float]:
    """Points, colours and the share of pixels kept."""
    shares = []

    def watched() -> Iterator[CleanView]:
        for clean in maps:
            shares.append(float((clean.view.confidence > 0).mean()))
            yield clean

    cloud: FusedCloud = fuse(watched(), maps.config, maps.origin)
    return cloud.xyz, cloud.rgb, float(np.mean(shares))


def fuse_before(maps: DepthMaps) -> tuple[np.ndarray, np.ndarray, float]:
    """The earlier fusion: all views in memory, one point per voxel, nothing matched."""
    depths, scene = maps.depths, maps.scene
    views = [
        dense_view(depths, k, scene.views[image], scene.config.subsample)
        for k, image in enumerate(depths.image_index.tolist())
    ]
    cleaned = [view.confidence.copy() for view in views]
    for k, view in enumerate(views):
        points = view.points().reshape(-1, 3)
        for other in range(len(views)):
            if other != k:
                drop = _seen_through(points, cleaned[k].ravel(), views[other], cleaned[other])
                cleaned[k].ravel()[drop] = 0
    voxel = float(np.median([np.median(view.depth) / view.focal_px for view in views]))
    xyz, rgb, trust = (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))
    for view, confidence, image in zip(views, cleaned, depths.image_index.tolist(), strict=True):
        kept = (confidence > 1.5) & (view.depth > 0)
        xyz = np.concatenate([xyz, view.points()[kept]])
        rgb = np.concatenate([rgb, grid_colours(maps.images, maps.grid, image)[kept]])
        trust = np.concatenate([trust, confidence[kept]])
        cell = np.floor(xyz / voxel).astype(np.int64)
        order = np.lexsort((-trust, cell[:, 2], cell[:, 1], cell[:, 0]))
        first = order[np.concatenate([[True], (np.diff(cell[order], axis=0) != 0).any(axis=1)])]
        xyz, rgb, trust = xyz[first], rgb[first], trust[first]
    return xyz, rgb, float(np.mean([(c > 1.5).mean() for c in cleaned]))


def _seen_through(points: np.ndarray, confidence: np.ndarray, other: DenseView, trust: np.ndarray) -> np.ndarray:
    local = transform(other.cam_from_world, points)
    z = local[:, 2]
    height, width = other.depth.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = np.floor(local[:, :2] / z[:, None] * other.focal_px + other.principal_point_px)
        inside = (z > 0) & (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
    rows = np.flatnonzero(inside)
    x, y = xy[rows].astype(np.int64).T
    seen = np.zeros(len(points), bool)
    seen[rows] = (z[rows] < 0.999 * other.depth[y, x]) & (confidence[rows] < trust[y, x])
    return seen


def measured(work: Callable[[DepthMaps], tuple[np.ndarray, np.ndarray, float]], maps: DepthMaps) -> Fused:
    """Run a fusion in a child process, which shares what is in memory already."""
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_measure, args=(work, maps, send))
    child.start()
    result: Fused = receive.recv()
    child.join()
    return result


def _measure(work: Callable, maps: DepthMaps, send) -> None:  # type: ignore[no-untyped-def]
    cv2.setNumThreads(1)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    xyz, rgb, pixels = work(maps)
    spent, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    send.send(Fused(xyz=xyz, rgb=rgb, pixels=pixels, cpu_s=spent, memory_mib=(after - before) / 1024))


# ---------------------------------------------------------------------------------------------------------- comparing


def onto(xyz: np.ndarray, estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Points moved by the similarity that brings estimated camera centres onto the true ones."""
    scale, pose = fit_similarity(camera_centres(estimate), camera_centres(truth))
    return scale * (xyz.astype(float) @ pose[:, :3].T) + pose[:, 3]


def compare_synthetic(scene: SyntheticScene, xyz: np.ndarray, images: list[int]) -> dict[str, float]:
    """Accuracy and coverage of points in the true frame."""
    sampled = xyz[:: max(1, len(xyz) // MAX_COMPARED)]
    error = np.full(len(sampled), np.inf)
    for image in images:
        rows, ratio = _depth_ratio(scene, image, sampled)
        error[rows] = np.minimum(error[rows], np.abs(ratio - 1))
    tree, covered = cKDTree(xyz), {2: [], 3: []}  # type: ignore[var-annotated]
    for image in images:
        xy = pixel_centres(scene.config.size_wh)[4::8, 4::8].reshape(-1, 2)
        origin, direction = rays(scene, image, xy)
        depth = cast_pixels(scene, image, xy).distance
        surface = origin + depth[:, None] * direction
        seen = np.zeros(len(surface))
        for other in images:
            rows, ratio = _depth_ratio(scene, other, surface)
            seen[rows] += np.abs(ratio - 1) < 0.005
        near = tree.query(surface)[0] < 0.01 * depth
        for count, shares in covered.items():
            shares.append(near[seen >= count])
    return {
        "points": len(xyz),
        "within 1 %": float((error < 0.01).mean()),
        "median error %": 100 * float(np.median(error)),
        "covered (2 views)": float(np.concatenate(covered[2]).mean()),
        "covered (3 views)": float(np.concatenate(covered[3]).mean()),
    }


def _depth_ratio(scene: SyntheticScene, image: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the points in an image, and their depth over the true depth of the surface in their pixel."""
    xy, depth = project(scene, image, points)
    inside = (depth > 0.05) & (xy >= 0).all(axis=1) & (xy < scene.config.size_wh).all(axis=1)
    rows = np.flatnonzero(inside)
    return rows, depth[rows] / cast_pixels(scene, image, xy[rows]).distance


@dataclass(frozen=True)
class Measured:
    """Cameras with known poses, and points triangulated with them."""

    pose: np.ndarray
    calibration: np.ndarray
    points: np.ndarray
    good: np.ndarray


def measured_cameras(path: Path, model: Reconstruction, images: ImageSet) -> Measured:
    truth = json.loads(path.read_text())
    entries = [truth[images.names[image]] for image in model.image_index.tolist()]
    pose = np.array([np.column_stack([e["R_cam_from_world"], e["t_cam_from_world"]]) for e in entries])
    calibration = np.array([e["K"] for e in entries])
    tracks = model.tracks
    view = _views(model, images)
    ray = np.einsum("vij,vj->vi", np.linalg.inv(calibration)[view], _homogeneous(tracks.obs_xy))
    ray = np.einsum("vij,vi->vj", pose[view][:, :, :3], ray)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    start = np.searchsorted(tracks.obs_point, np.arange(len(model.points) + 1))
    across = np.eye(3) - ray[:, :, None] * ray[:, None, :]  # nearest point of the rays
    right = np.einsum("vij,vj->vi", across, camera_centres(pose)[view])
    left = np.add.reduceat(across, start[:-1])
    points = np.linalg.solve(left, np.add.reduceat(right, start[:-1])[..., None])[..., 0]
    projected = np.einsum("vij,vj->vi", calibration[view], _in_camera(pose[view], points[tracks.obs_point]))
    error = np.linalg.norm(projected[:, :2] / projected[:, 2:] - tracks.obs_xy, axis=1)
    cosine = np.array([(ray[a:b] @ ray[a:b].T).min() for a, b in itertools.pairwise(start)])
    good = (np.maximum.reduceat(error, start[:-1]) < 1.5) & (cosine < np.cos(np.radians(2)))
    return Measured(pose=pose, calibration=calibration, points=points, good=good)


def compare_measured(
    known: Measured, model: Reconstruction, images: ImageSet, grid: ImageGrid, xyz: np.ndarray
) -> dict[str, float]:
    """Accuracy of points in the measured frame at the reference points."""
    tracks, view = model.tracks, _views(model, images)
    errors, wanted = [], 0
    for k, image in enumerate(model.image_index.tolist()):
        rows = np.flatnonzero((view == k) & known.good[tracks.obs_point])
        scale, (width, height) = grid.scale[image], grid.size_wh[image].tolist()
        depth = foremost_depth(xyz, known.pose[k], np.diag([*scale, 1]) @ known.calibration[k], width, height)
        x, y = np.floor(tracks.obs_xy[rows] * scale).astype(np.int64).T
        true = _in_camera(known.pose[k], known.points[tracks.obs_point[rows]])[:, 2]
        ratio = depth[y.clip(0, height - 1), x.clip(0, width - 1)] / true
        errors.append(np.abs(ratio[np.isfinite(ratio)] - 1))
        wanted += len(rows)
    error = np.concatenate(errors)
    return {
        "points": len(xyz),
        "within 1 %": float((error < 0.01).mean()),
        "median error %": 100 * float(np.median(error)),
        "found": len(error) / wanted,
        "references": wanted,
    }


def foremost_depth(xyz: np.ndarray, pose: np.ndarray, calibration: np.ndarray, width: int, height: int) -> np.ndarray:
    """Median depth of the points of every pixel that are within 5 % of the nearest; infinite where there is none."""
    inside, pixel, z = _project(xyz, pose, calibration, width, height)
    del inside
    nearest = np.full(width * height, np.inf)
    np.minimum.at(nearest, pixel, z)
    front = z < 1.05 * nearest[pixel]
    pixel, z = pixel[front], z[front]
    order = np.lexsort((z, pixel))
    _, first, count = np.unique(pixel[order], return_index=True, return_counts=True)
    nearest[pixel[order][first]] = z[order][first + count // 2]
    return nearest.reshape(height, width)


def _project(
    xyz: np.ndarray, pose: np.ndarray, calibration: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the points in a picture, their pixels (row-major) and depths."""
    local = _in_camera(pose, xyz)
    rows = np.flatnonzero(local[:, 2] > 1e-6)
    at = local[rows] @ calibration.T
    xy = np.floor(at[:, :2] / at[:, 2:])
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
    x, y = xy[inside].astype(np.int64).T
    return rows[inside], y * width + x, local[rows[inside], 2]


def _views(model: Reconstruction, images: ImageSet) -> np.ndarray:
    row = np.full(images.num_images, -1)
    row[model.image_index] = np.arange(len(model.image_index))
    return row[model.tracks.obs_image]


def _homogeneous(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([xy, np.ones(len(xy))])


def _in_camera(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", pose[..., :3], points) + pose[..., 3]


# ------------------------------------------------------------------------------------------------------------ drawing


def new_views(model: Reconstruction) -> list[np.ndarray]:
    """Two poses where no photograph was taken: above and beside two of the cameras, looking at the middle."""
    poses, centres = model.cam_from_world, camera_centres(model.cam_from_world)
    up = -poses[:, 1, :3].mean(axis=0)
    up /= np.linalg.norm(up)
    middle = np.median(model.points, axis=0)
    found = []
    for view, side, rise in ((len(poses) // 4, -0.35, 0.35), (3 * len(poses) // 4, 0.35, 0.2)):
        away = np.linalg.norm(middle - centres[view])
        centre = centres[view] + away * (rise * up + side * poses[view, 0, :3] - 0.1 * poses[view, 2, :3])
        forward = (middle - centre) / np.linalg.norm(middle - centre)
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        found.append(np.column_stack([rotation, -rotation @ centre]))
    return found


def draw(xyz: np.ndarray, rgb: np.ndarray, pose: np.ndarray, size_wh: tuple[int, int] = (640, 480)) -> np.ndarray:
    """Points as squares of two pixels, the nearest in front."""
    width, height = size_wh
    calibration = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    rows, pixel, depth = _project(xyz, pose, calibration, width, height)
    picture = np.tile(np.array(BACKGROUND, np.uint8), (height * width, 1))
    order = np.argsort(-depth, kind="stable")  # far points first, near ones over them
    covering = np.concatenate([pixel[order] + step for step in (0, 1, width, width + 1)])
    colour, near = np.tile(rgb[rows[order]], (4, 1)), np.tile(depth[order], 4)
    again = np.argsort(-near, kind="stable")
    keep = covering[again] < height * width
    picture[covering[again][keep]] = colour[again][keep]
    return picture.reshape(height, width, 3)


def save_pictures(name: str, model: Reconstruction, clouds: dict[str, Fused], folder: Path) -> None:
    """Both new views of every cloud, as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, cloud in clouds.items():
        pictures = [draw(cloud.xyz.astype(float), cloud.rgb, pose) for pose in new_views(model)]
        Image.fromarray(np.hstack(pictures)).save(folder / f"dense-{name}-{label}.jpg", quality=85)


# ------------------------------------------------------------------------------------------------------------ running


def run_set(name: str, photos: Path, work: Path) -> tuple[RunResult, dict[str, Fused]]:
    """Reconstruct, then fuse both ways."""
    result = reconstruct(photos, work / name, PipelineConfig(dense=True))
    made = result.depth_maps[0]
    maps = DepthMaps(
        made.depths, result.models[0], made.scene, made.images, made.grid, made.config, Store(work / "fresh" / name)
    )
    shutil.rmtree(work / "fresh", ignore_errors=True)  # so that matching is timed, too
    return result, {"before": measured(fuse_before, maps), "now": measured(fuse_now, maps)}


def print_row(name: str, label: str, cloud: Fused, figures: dict[str, float], pairs: int) -> None:
    cost = {"pixels": cloud.pixels, "CPU s per pair": cloud.cpu_s / max(pairs, 1), "memory MiB": cloud.memory_mib}
    cells = [f"{value:.0f}" if value >= 100 else f"{value:.3f}" for value in (figures | cost).values()]
    print(f"| {name} | {label} | " + " | ".join(cells) + " |", flush=True)


def print_header(figures: dict[str, float]) -> None:
    columns = ["set", "fusion", *figures, "pixels", "CPU s per pair", "memory MiB"]
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="seeds 0 .. N-1 of the synthetic scene")
    parser.add_argument("--work", type=Path, help="keep reconstructions here (default: a temporary folder)")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the clouds")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    work = arguments.work or Path(tempfile.mkdtemp(prefix="anchorsfm-dense-"))
    work.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.synthetic):
        scene = make_scene(SceneConfig(seed=seed))
        truth = write_photographs(scene, work / f"seed-{seed}-photos")
        result, clouds = run_set(f"seed-{seed}", truth.parent / "images", work)
        model = result.models[0]
        for label, cloud in clouds.items():
            moved = onto(cloud.xyz, model.cam_from_world, scene.cam_from_world[model.image_index])
            figures = compare_synthetic(scene, moved, model.image_index.tolist())
            if seed == 0 and label == "before":
                print_header(figures)
            print_row(f"synthetic {seed}", label, cloud, figures, result.report.pairs.get("ok", 0))
        if arguments.pictures:
            save_pictures(f"synthetic-{seed}", model, clouds, arguments.pictures)
    started = False
    for folder in arguments.photos:
        result, clouds = run_set(folder.name, folder / "images", work)
        model = result.models[0]
        if (folder / "gt.json").exists():
            known = measured_cameras(folder / "gt.json", model, result.images)
            for label, cloud in clouds.items():
                moved = onto(cloud.xyz, model.cam_from_world, known.pose)
                figures = compare_measured(known, model, result.images, result.depth_maps[0].grid, moved)
                if not started:
                    print_header(figures)
                    started = True
                print_row(folder.name, label, cloud, figures, result.report.pairs.get("ok", 0))
        if arguments.pictures:
            save_pictures(folder.name, model, clouds, arguments.pictures)


if __name__ == "__main__":
    main()
