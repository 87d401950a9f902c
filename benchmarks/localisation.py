"""New photographs in a finished model: errors against measured poses, refusals, time.

    OMP_NUM_THREADS=1 python benchmarks/localisation.py WORK SET ... --others FOLDER ...
    OMP_NUM_THREADS=1 python benchmarks/localisation.py WORK SET --leave-out 5 --whole
    OMP_NUM_THREADS=1 python benchmarks/localisation.py WORK SET --copies

SET holds `images/` and `gt.json` with measured poses. A model is made of every other photograph (the first, the third
...; `--leave-out N`: without every Nth) at 1024 px without known intrinsics, the remaining ones are localised in it,
without its photographs. The model is aligned to the truth by its own cameras (similarity, rotation from theirs): what
these are off is the error of the model, what the others are off that of the localisation. As the alignment follows the
cameras of the model, these are also measured with each left out of it, as the others are. `--exact` shows what the
model is off where the others stand, by poses from observations without error: the points of the model, triangulated
with the measured poses and cameras, are projected into the photograph (which must have no distortion). `--whole`: the
same poses beside those of a model of all photographs. `--others`: folders of photographs of other places, all of which
must be refused. `--copies`: what a photograph costs against a model of all of the set: copies of them are localised,
compressed anew with another contrast, and with a twentieth cut off at every border, which no camera of the model fits.

PyCOLMAP beside it, on the same photographs at the same size and in the same model: SIFT, exhaustive matching, points
triangulated from the model's poses and cameras, absolute poses with the same cameras.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image, ImageEnhance
from scipy.spatial.transform import Rotation

import anchorsfm
from anchorsfm.evaluation.sources import read_truth
from anchorsfm.geometry.transforms import camera_centres, rotation_angle_deg
from anchorsfm.localisation.run import LocalisedImage
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.reconstruction import Camera

EXTENSIONS = (".jpg", ".jpeg", ".png")


def photographs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    parser.add_argument("--per-other", type=int, default=8, help="photographs of each other folder, evenly spaced")
    parser.add_argument("--leave-out", type=int, default=2, help="every how many photographs one is left out")
    parser.add_argument("--whole", action="store_true", help="also compare with a model of all photographs")
    parser.add_argument("--exact", action="store_true", help="also poses from observations without error")
    parser.add_argument("--copies", action="store_true", help="only the cost against a model of all photographs")
    given = parser.parse_args()
    for folder in given.sets:
        if given.copies:
            localise_copies(folder, given.work)
            continue
        files, output = photographs(folder / "images"), given.work / folder.name
        new = files[given.leave_out // 2 :: given.leave_out]
        old = [file for file in files if file not in new]
        reconstructed(old, output)
        kept = (output / "localisation" / "0.safetensors").stat().st_size / len(old) / 1e6
        print(f"\n{folder.name}: model of {len(old)}, {len(new)} localised, {kept:.2f} MB an image kept")
        found = localised(output, new)
        report(output, found, read_poses(folder / "gt.json"))
        if given.exact:
            report(output, exactly_placed(output, found, folder / "gt.json"), read_poses(folder / "gt.json"))
        theirs = localised_by_pycolmap(output, old, new, given.work / f"{folder.name}-pycolmap", found)
        report(output, theirs, read_poses(folder / "gt.json"))
        if given.whole:
            whole = reconstructed(files, given.work / f"{folder.name}-all")
            beside_whole(output, found, whole)
        refuse(output, given.others, given.per_other)


def reconstructed(files: list[Path], output: Path) -> Path:
    if not (output / "sparse").is_dir():
        anchorsfm.reconstruct(files, output, mapper="tracks", dense=False)
    return output


def read_poses(file: Path) -> dict[str, np.ndarray]:
    truth = read_truth(file)
    return dict(zip(truth.names, truth.cam_from_world, strict=True))


@dataclass(frozen=True, kw_only=True)
class Localised:
    """Poses of new photographs by one program."""

    program: str
    images: Sequence[LocalisedImage]
    cpu_s: float
    """A photograph."""


def localised(output: Path, files: list[Path]) -> Localised:
    anchorsfm.localise(files[0], output)  # libraries are loaded, kernels compiled
    start = time.process_time()
    found = anchorsfm.localise(files, output)
    return Localised(program="ours", images=found.images, cpu_s=(time.process_time() - start) / len(files))


def localised_by_pycolmap(output: Path, old: list[Path], new: list[Path], work: Path, ours: Localised) -> Localised:
    """Matches of PyCOLMAP with the model's photographs and points that it triangulates with the model's cameras."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pycolmap.logging.minloglevel = 2
    pycolmap.set_random_seed(0)
    root, database = old[0].parent, work / "database.db"
    extract(database, root, old)
    match(database, work, [(a, b) for k, a in enumerate(old) for b in old[:k]])
    start = time.process_time()
    extract(database, root, new)
    match(database, work, [(a, b) for a in new for b in old])
    model_s = time.process_time()
    model = triangulated(output, database, root, work)
    model_s = time.process_time() - model_s
    camera_of = {image.name: image.camera for image in ours.images if image.camera is not None}
    images = []
    with pycolmap.Database.open(database) as opened:
        for file in new:
            camera = camera_of.get(file.name)
            if camera is None:
                images.append(LocalisedImage(name=file.name, reason="no camera of ours"))
            else:
                images.append(absolute_pose(opened, model, file.name, camera))
    each_s = (time.process_time() - start - model_s) / len(new)
    return Localised(program="PyCOLMAP", images=images, cpu_s=each_s)


def extract(database: Path, root: Path, files: list[Path]) -> None:
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size, options.use_gpu = 1024, False
    names = [file.name for file in files]
    pycolmap.extract_features(
        database, root, names, pycolmap.CameraMode.PER_IMAGE, extraction_options=options, device=pycolmap.Device.cpu
    )


def match(database: Path, work: Path, pairs: list[tuple[Path, Path]]) -> None:
    (work / "pairs.txt").write_text("".join(f"{a.name} {b.name}\n" for a, b in pairs))
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu = False
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = work / "pairs.txt"
    pycolmap.match_image_pairs(
        database,
        matching_options=options,
        pairing_options=pairing,
        verification_options=verification,
        device=pycolmap.Device.cpu,
    )


def triangulated(output: Path, database: Path, root: Path, work: Path) -> pycolmap.Reconstruction:
    """PyCOLMAP's matches as points, from the poses and cameras of our model."""
    stored = pycolmap.Reconstruction(read_models(output)[0].folder)
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        for image in stored.images.values():
            known = opened.read_image_with_name(image.name)
            camera = pycolmap.Camera(image.camera.todict() | {"camera_id": known.camera_id})
            opened.update_camera(camera)  # a camera for every image, as it is there
            model.add_camera_with_trivial_rig(camera)
            new = pycolmap.Image(name=image.name, camera_id=known.camera_id, image_id=known.image_id)
            model.add_image_with_trivial_frame(new, image.cam_from_world())
    (work / "points").mkdir()
    return pycolmap.triangulate_points(model, database, root, work / "points")


def absolute_pose(
    database: pycolmap.Database, model: pycolmap.Reconstruction, name: str, camera: Camera
) -> LocalisedImage:
    """Of one photograph from its verified matches with the photographs of the model."""
    image = database.read_image_with_name(name).image_id
    xy = database.read_keypoints(image)[:, :2]
    pairs = set()
    for other, view in model.images.items():
        if not database.exists_two_view_geometry(image, other):
            continue
        for mine, theirs in database.read_two_view_geometry(image, other).inlier_matches:
            if view.points2D[theirs].has_point3D():
                pairs.add((int(mine), view.points2D[theirs].point3D_id))
    keypoint, point = np.array(sorted(pairs)).reshape(-1, 2).T
    lens = pycolmap.Camera(model=camera.model, width=camera.width, height=camera.height, params=np.array(camera.params))
    xyz = np.array([model.points3D[k].xyz for k in point]).reshape(-1, 3)
    found = pycolmap.estimate_and_refine_absolute_pose(xy[keypoint], xyz, lens, return_covariance=True)
    if found is None:
        return LocalisedImage(name=name, reason="no pose", num_matches=len(pairs))
    variance = np.diag(found["covariance"])
    pose = found["cam_from_world"].matrix()
    return LocalisedImage(
        name=name,
        cam_from_world=pose,
        camera=camera,
        focal_source="ours",
        num_inliers=int(found["num_inliers"]),
        num_matches=len(pairs),
        position_deviation=float(np.sqrt(variance[3:].sum())),
        rotation_deviation_deg=float(np.degrees(np.sqrt(variance[:3].sum()))),
    )


def report(output: Path, found: Localised, pose_of: dict[str, np.ndarray]) -> None:
    """Errors of every photograph, and of the model."""
    stored = read_models(output)[0]
    own = [pose_of[name] for name in stored.view_names]
    poses = stored.model.cam_from_world
    scale, pose = alignment(poses, np.array(own))
    print(f"\n| {found.program} | inliers | of | position (mm) | +- | rotation (deg) | +- | focal (px) | from |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    errors, ratios = [], []
    for image in found.images:
        if image.cam_from_world is None or image.camera is None or image.position_deviation is None:
            print(f"| {image.name} | | {image.num_matches} | | | | | | {image.reason} |")
            continue
        position, rotation = error(image.cam_from_world, pose_of[image.name], scale, pose)
        errors.append((position, rotation))
        deviation, focal = 1000 * scale * image.position_deviation, image.camera.params[0]
        ratios.append(deviation / position)
        print(
            f"| {image.name} | {image.num_inliers} | {image.num_matches} | {position:.2f} | {deviation:.2f} "
            f"| {rotation:.4f} | {image.rotation_deviation_deg:.4f} | {focal:.1f} | {image.focal_source} |"
        )
    model = np.array([error(p, t, scale, pose) for p, t in zip(poses, own, strict=True)])
    left_out = []
    for k in range(len(poses)):
        others = np.arange(len(poses)) != k
        left_out.append(error(poses[k], own[k], *alignment(poses[others], np.array(own)[others])))
    theirs, own_error = np.median(errors, axis=0).round(4), np.median(model, axis=0).round(4)
    print(
        f"\n{found.program}: {len(errors)} of {len(found.images)} placed, median {theirs} (mm, deg); of the model's "
        f"own cameras {own_error}, each left out of the alignment {np.median(left_out, axis=0).round(4)}; "
        f"stated / true position, median {statistics.median(ratios):.2f}; {found.cpu_s:.2f} CPU s a photograph"
    )


def exactly_placed(output: Path, found: Localised, truth: Path) -> Localised:
    """Poses from the same points of the model, seen where the true ones would be: no error but the model's."""
    stored = read_models(output)[0]
    true = true_points(stored, truth, np.unique(np.concatenate([i.point for i in found.images if i.point is not None])))
    poses, intrinsics = read_poses(truth), read_intrinsics(truth)
    images = []
    for image in found.images:
        if image.point is None or image.camera is None:
            images.append(image)
            continue
        pose = poses[image.name]
        seen = (true[image.point] @ pose[:, :3].T + pose[:, 3]) @ intrinsics[image.name].T
        camera = image.camera
        lens = pycolmap.Camera(model=camera.model, width=camera.width, height=camera.height, params=list(camera.params))
        placed = pycolmap.estimate_and_refine_absolute_pose(
            seen[:, :2] / seen[:, 2:], stored.model.points[image.point], lens
        )
        images.append(replace(image, cam_from_world=placed["cam_from_world"].matrix()))
    return Localised(program="without error of observations", images=images, cpu_s=0.0)


def true_points(stored: StoredModel, truth: Path, points: np.ndarray) -> np.ndarray:
    """Where the photographs of a model saw its points, with measured poses and cameras: (point, 3), NaN for others."""
    poses, intrinsics, tracks = read_poses(truth), read_intrinsics(truth), stored.model.tracks
    xyz = np.full((len(stored.model.points), 3), np.nan)
    for point in points:
        rows = tracks.obs_point == point
        normal, right = np.zeros((3, 3)), np.zeros(3)
        for image, xy in zip(tracks.obs_image[rows], tracks.obs_xy[rows], strict=True):
            pose, matrix = poses[stored.names[image]], intrinsics[stored.names[image]]
            ray = pose[:, :3].T @ np.linalg.solve(matrix, [*xy, 1.0])
            across = np.eye(3) - np.outer(ray, ray) / (ray @ ray)
            normal += across
            right += across @ camera_centres(pose)
        xyz[point] = np.linalg.solve(normal, right)
    return xyz


def read_intrinsics(file: Path) -> dict[str, np.ndarray]:
    return {name: np.array(entry["K"]) for name, entry in json.loads(file.read_text()).items()}


def beside_whole(output: Path, found: Localised, whole: Path) -> None:
    """Localised poses beside those of the same photographs in a model of all, by its scene size."""
    stored, everything = read_models(output)[0], read_models(whole)[0]
    pose_of = dict(zip(everything.view_names, everything.model.cam_from_world, strict=True))
    scale, pose = alignment(stored.model.cam_from_world, np.array([pose_of[name] for name in stored.view_names]))
    size = json.loads((whole / "uncertainty.json").read_text())[0]["scene_size"]
    off = [
        error(image.cam_from_world, pose_of[image.name], scale, pose)
        for image in found.images
        if image.cam_from_world is not None
    ]
    share, turned = np.array(off).T / [[1000 * size], [1.0]]
    print(
        f"beside the model of all ({len(off)} of {len(found.images)} placed): median {np.median(share):.3%} of the "
        f"scene size, largest {share.max():.3%}; {np.median(turned):.3f} degrees, largest {turned.max():.3f}"
    )


def alignment(poses: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Similarity to the truth: rotation from the cameras' rotations, because few centres near a line leave it open."""
    rotation = Rotation.from_matrix(np.swapaxes(truth[:, :, :3], 1, 2) @ poses[:, :, :3]).mean().as_matrix()
    source, target = camera_centres(poses) @ rotation.T, camera_centres(truth)
    from_mean, to_mean = source - source.mean(axis=0), target - target.mean(axis=0)
    scale = float((from_mean * to_mean).sum() / (from_mean**2).sum())
    return scale, np.column_stack([rotation, target.mean(axis=0) - scale * source.mean(axis=0)])


def error(cam_from_world: np.ndarray, truth: np.ndarray, scale: float, pose: np.ndarray) -> tuple[float, float]:
    """Position (mm) and rotation (degrees) of a pose of the model in the frame of the truth."""
    centre = scale * (pose[:, :3] @ camera_centres(cam_from_world)) + pose[:, 3]
    rotation = cam_from_world[:, :3] @ pose[:, :3].T
    turned = rotation_angle_deg(rotation @ truth[:, :3].T)
    return 1000 * float(np.linalg.norm(centre - camera_centres(truth))), float(turned)


def localise_copies(folder: Path, work: Path) -> None:
    """Copies of all photographs of a model."""
    files = photographs(folder / "images")
    output = reconstructed(files, work / f"{folder.name}-all")
    for name, border in (("compressed anew", 0.0), ("cut", 0.05)):
        copies = work / f"{folder.name}-{name.split()[0]}"
        copies.mkdir(exist_ok=True)
        for file in files:
            with Image.open(file) as picture:
                width, height = picture.size
                left, top = round(width * border), round(height * border)
                part = picture.crop((left, top, width - left, height - top))
                changed = ImageEnhance.Contrast(part).enhance(0.9)
                changed.save(copies / f"{file.stem}.jpg", quality=80)
        found = localised(output, photographs(copies))
        stored = read_models(output)[0]
        pose_of = dict(zip([Path(n).stem for n in stored.view_names], stored.model.cam_from_world, strict=True))
        size = json.loads((output / "uncertainty.json").read_text())[0]["scene_size"]
        unmoved = (1.0, np.eye(3, 4))
        off = [
            error(image.cam_from_world, pose_of[Path(image.name).stem], *unmoved)
            for image in found.images
            if image.cam_from_world is not None
        ]
        share, turned = np.array(off).T / [[1000 * size], [1.0]]
        sources = sorted({image.focal_source or "none" for image in found.images})
        print(
            f"{folder.name}, model of {len(stored.names)}, {name}: {len(off)} of {len(files)} placed, "
            f"{found.cpu_s:.2f} CPU s a photograph, focal lengths from {sources}; off by {np.median(share):.3%} of the "
            f"scene size, at most {share.max():.3%}; {np.median(turned):.3f} degrees, at most {turned.max():.3f}",
            flush=True,
        )


def refuse(output: Path, folders: list[Path], per_folder: int) -> None:
    """Photographs of other places."""
    for folder in folders:
        if folder.name == output.name:
            continue
        files = photographs(folder)
        files = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, per_folder).astype(int))]
        found = anchorsfm.localise(files, output)
        counts = [image.num_matches for image in found.images]
        print(
            f"of {folder.name}: {len(found.refused)} of {len(files)} refused ({min(counts)} to {max(counts)} matches)"
        )
        for name, image in found.placed.items():
            print(f"  placed wrongly: {name} with {image.num_inliers} inliers of {image.num_matches}")
        for reason in list(found.refused.values())[:2]:
            print(f"  {reason}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
