"""A finished run without a reconstruction: a ring of cameras around a ball on a floor, and all that a report tells."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from anchorsfm.colmap.write import write_models
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.io.clock import StageTiming
from anchorsfm.io.layout import Layout
from anchorsfm.io.ply import write_ply
from anchorsfm.io.store import write_atomic
from anchorsfm.report import PairLog, report_images, report_model
from anchorsfm.report.depth import DepthLog
from anchorsfm.report.json_text import report_json
from anchorsfm.results.record import AlignmentReport, RunReport, SolverReport
from anchorsfm.scene.images import ImageSet, SkippedImage
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.uncertainty import Deviations, ModelUncertainty

CAMERA = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.01))


def ring_model(num_views: int, num_points: int = 3000, *, seed: int = 0) -> Reconstruction:
    """Cameras on a ring, 3 from the middle and y down; points on a ball of radius 1 and the floor below it."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((num_points, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    points = normal.copy()
    floor = rng.random(num_points) < 0.3
    points[floor] = np.stack([*rng.uniform(-1.8, 1.8, (2, floor.sum())), np.full(floor.sum(), 1.0)], 1)[:, [0, 2, 1]]
    normal[floor] = [0, -1, 0]
    poses = np.stack([_on_ring(angle) for angle in np.linspace(0, 2 * np.pi, num_views, endpoint=False)])
    view, point, xy = _observed(poses, points, normal, rng)
    kept, point = np.unique(point, return_inverse=True)
    return Reconstruction(
        image_index=np.arange(num_views),
        cam_from_world=poses,
        cameras=(CAMERA,),
        camera_index=np.zeros(num_views, np.int64),
        points=points[kept],
        rgb=np.rint(128 + 100 * normal[kept]).astype(np.uint8),
        error_px=np.full(len(kept), 0.5),
        tracks=Tracks(obs_point=point, obs_image=view, obs_xy=xy),
    )


def _on_ring(angle: float) -> np.ndarray:
    centre = np.array([3 * np.sin(angle), -0.6, -3 * np.cos(angle)])
    ahead = -centre / np.linalg.norm(centre)
    right = np.cross([0.0, 1.0, 0.0], ahead)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(ahead, right), ahead])
    return np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1)


def _observed(
    poses: np.ndarray, points: np.ndarray, normal: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """View, point and pixel of about six observations a point, sorted by point; every point has at least two."""
    from anchorsfm.colmap.cameras import project

    rows = []
    for view, pose in enumerate(poses):
        towards = camera_centres(pose) - points
        facing = (towards * normal).sum(1) / np.linalg.norm(towards, axis=1) > 0.25
        xy, valid = project(CAMERA, points @ pose[:, :3].T + pose[:, 3])
        valid &= facing & ((xy > 0) & (xy < [CAMERA.width, CAMERA.height])).all(1)
        seen = np.flatnonzero(valid & (rng.random(len(points)) < min(1.0, 18 / len(poses))))
        rows.append((np.full(len(seen), view), seen, xy[seen] + rng.normal(0, 0.4, (len(seen), 2))))
    views, point, xy = (np.concatenate(part) for part in zip(*rows, strict=True))
    enough = np.bincount(point, minlength=len(points))[point] >= 2
    order = np.lexsort((views[enough], point[enough]))
    return views[enough][order], point[enough][order], xy[enough][order]


def ring_pairs(num_images: int, *, reach: int = 10, seed: int = 0) -> Iterator[PairPrediction]:
    """Every image with its next `reach` neighbours; fewer matches further off."""
    rng = np.random.default_rng(seed)
    for i in range(num_images):
        for step in range(1, min(reach, num_images - 1 - i) + 1):
            count = int(rng.poisson(900 * 0.6**step))
            status = PairStatus.OK if count >= 30 else PairStatus.UNMATCHED
            status = PairStatus.PURE_ROTATION if (i, step) == (0, 2) else status
            nothing = np.zeros((count if count >= 30 else 0, 2))
            found = Matches(xy_i=nothing, xy_j=nothing, confidence=np.ones(len(nothing)))
            yield PairPrediction(i=i, j=i + step, status=status, matches=found, keypoint_matches=None,
                                 frame_i=None, frame_j=None)  # fmt: skip


def write_photographs(folder: Path, names: list[str], size_wh: tuple[int, int]) -> None:
    """Coloured noise; a hundred different files at most, the others are copies."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if k >= 12:
            shutil.copyfile(folder / names[k % 12], path)
            continue
        rng = np.random.default_rng(k)
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).resize(size_wh, Image.Resampling.BICUBIC)
        Image.fromarray(np.asarray(coarse) // 2 + rng.integers(0, 60, (size_wh[1], size_wh[0], 1), np.uint8)).save(
            path, quality=90
        )


def write_synthetic_run(
    output: Path,
    num_images: int,
    *,
    photo_wh: tuple[int, int] = (320, 240),
    names: list[str] | None = None,
    num_missing: int = 1,
    num_points: int | None = None,
    num_dense: int = 20_000,
) -> list[Reconstruction]:
    """Everything a page is made from, below `output`; the last `num_missing` photographs are not registered."""
    names = names or [f"{k:04d}.jpg" for k in range(num_images)]
    write_photographs(output / "photos", names, photo_wh)
    registered = num_images - num_missing
    model = ring_model(registered, num_points or 150 * num_images)
    rng = np.random.default_rng(1)
    images = ImageSet(
        root=output / "photos",
        names=tuple(names),
        size_wh=np.tile(np.array(photo_wh), (num_images, 1)),
        camera_index=np.zeros(num_images, np.int64),
        focal_prior_px=np.full(num_images, np.nan),
        digests=("",) * num_images,
        skipped=(SkippedImage(name="notes.jpg", reason="not an image, or damaged at its beginning"),),
    )
    log = PairLog()
    for _ in log.watch(ring_pairs(num_images)):
        pass
    position = 1e-3 * rng.lognormal(0, 0.3, registered)
    uncertainty = ModelUncertainty(
        scene_size=3.2,
        position=position,
        rotation_deg=20 * position,
        camera_params=((0.4, 0.8, 0.9, 1e-4),),
        weak=np.arange(registered) == 2,
        metric=False,
        noise=Deviations(position=position / 3, rotation_deg=7 * position, camera_params=((0.1, 0.2, 0.2, 5e-5),)),
    )
    depths = DepthLog(registered)
    depths.begin_model(model)
    y, x = np.mgrid[:192, :256]
    for image in range(registered):
        depths.add(image, 2 + 0.5 * np.sin((x + 9 * image) / 40.0), np.where(y > 20, 2.0 + x / 80, 0.0))
    cost = tuple(float(value) for value in np.geomspace(4, 0.2, 12))
    solver = SolverReport(method="second order", status="converged", iterations=12, cost=cost)
    report = RunReport(
        versions={"anchorsfm": "0.1.0", "numpy": np.__version__},
        seed=0,
        config={"max_image_size": 1024, "classical": {"dense": {"size": 512}}, "similarity": None},
        changed=("classical.dense.size",),
        image_root=str(output / "photos"),
        images=report_images(images, [model], {}, log),
        pairs=dict(sorted(log.status.items())),
        belief=log.belief(),
        pair_list=log.columns(),
        alignments=(
            AlignmentReport(images=registered, unconfirmed_share=0.0, coarse_iterations=12, coarse_loss=0.2,
                            coarse_status="converged", fine_iterations=12, fine_loss=0.1, fine_status="converged",
                            solver={"coarse": solver, "fine": solver}),
        ),
        models=(report_model(0, model, (), uncertainty, names),),
        depth=depths.finish(Layout(output).depth_pictures),
        stages=(StageTiming(stage="dense depth", wall_s=12.5, cpu_s=23.25, peak_memory_mib=640.0),
                StageTiming(stage="adjustment", wall_s=5.0, cpu_s=4.9, peak_memory_mib=510.0)),
        warnings=("skipped notes.jpg: not an image, or damaged at its beginning",),
        weights=None,
    )  # fmt: skip
    write_models(output / "sparse", [model], names)
    dense = np.random.default_rng(2).standard_normal((num_dense, 3))
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    write_ply(output / "dense" / "0.ply", dense, np.rint(128 + 100 * dense).astype(np.uint8))
    write_atomic(output / "report.json", report_json(report))
    return [model]
