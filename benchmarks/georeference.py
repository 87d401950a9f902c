"""GPS positions and recorded focal lengths: a real flight in metres, and rendered flights with known truth.

    python benchmarks/georeference.py real PHOTOS [--work WORK]
    python benchmarks/georeference.py rendered [--scenes 4] [--records 5] [--work WORK]

`real`: one command on photographs with GPS positions, with three scene graphs, then with three positions moved by 100 m
(the EXIF blocks of copies are rewritten), then PyCOLMAP's mapper with position priors on the same matches. Tilt: of
the mean viewing direction, which a gimbal keeps straight down, against the vertical.

`rendered`: 50 photographs straight down at ground with a relief of 0 and 2 % of the height. EXIF says a focal length
that is wrong by 1 % (standard deviation), positions have a noise of 2 m. Each scene is rendered and reconstructed once;
records are drawn anew for each finished model. Ratio: root mean square error over root mean square reported deviation.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pycolmap
from PIL import Image

from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.io.images import load_image_set
from anchorsfm.mapping.georeference import georeference
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.synthetic import GroundConfig, SceneConfig, make_scene, write_photographs
from anchorsfm.tracks.focal_prior import FocalPriors, settle_focal_lengths

GRAPHS = ("auto", "complete", "logwin-7")
MOVED, BY_M = (2, 9, 14), 100.0
HEIGHT_M, NOISE_M, FOCAL_ERROR, EXIF_DEVIATION = 60.0, 2.0, 0.01, 0.015
_GPS = 0x8825
_DEGREES_PER_M = 1 / 111_195


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("real", "rendered"))
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--records", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keep photographs and results here (default: a temporary folder)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-georeference-"))
    work.mkdir(parents=True, exist_ok=True)
    if args.kind == "real":
        real(args.photos, work)
    else:
        rendered(args.scenes, args.records, work)


def real(photos: Path, work: Path) -> None:
    print("| run | registered | RMS east, north, up (m) | horizontally (m) | focal (px) | +- | tilt (deg) | outliers |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for graph in GRAPHS:
        config = PipelineConfig(dense=False, scene_graph=graph, keep_database=graph == "complete")
        row(graph, reconstruct(photos, work / graph, config))
    truth = reconstruct(photos, work / "auto", PipelineConfig(dense=False)).models[0]
    spoiled = work / "spoiled"
    move_positions(photos, spoiled)
    result = reconstruct(spoiled, work / "out-spoiled", PipelineConfig(dense=False))
    row(f"{len(MOVED)} positions moved by {BY_M:g} m", result)
    origins = [load_image_set(folder).geo for folder in (photos, spoiled)]
    shift = origins[1].enu_m[0] - origins[0].enu_m[0]  # their frames have different origins
    other = camera_centres(result.models[0].cam_from_world) - shift
    change = np.linalg.norm(other - camera_centres(truth.cam_from_world), axis=1)
    print(f"\npositions changed by {np.sqrt((change**2).mean()):.3f} m (RMS)")
    with_pycolmap(photos, work)


def row(name: str, result: RunResult) -> None:
    model, found = result.models[0], result.report.models[0].georeference
    east, north, up = found.rms_m
    focal = result.report.models[0].focal_lengths
    sigma_px = focal[0].sigma_px if focal else result.report.models[0].uncertainty.camera_params[0][0]
    outliers = [entry.name for entry in found.residuals if entry.outlier]
    print(
        f"| {name} | {len(model.image_index)} | {east:.2f} {north:.2f} {up:.2f} | {np.hypot(east, north):.2f} "
        f"| {focal_length_px(model.cameras[0]):.1f} | {sigma_px:.1f} | {tilt_deg(model.cam_from_world):.2f} "
        f"| {' '.join(outliers)} |",
        flush=True,
    )


def tilt_deg(cam_from_world: np.ndarray) -> float:
    """Between the vertical and the mean viewing direction of cameras that a gimbal keeps straight down."""
    axis = cam_from_world[:, 2, :3].mean(axis=0)
    return float(np.degrees(np.arccos(min(-axis[2] / np.linalg.norm(axis), 1.0))))


def move_positions(photos: Path, spoiled: Path) -> None:
    """Copies, three of which say that they were taken elsewhere."""
    shutil.rmtree(spoiled, ignore_errors=True)
    spoiled.mkdir()
    for number, path in enumerate(sorted(photos.iterdir())):
        if number not in MOVED:
            shutil.copy(path, spoiled / path.name)
            continue
        image = Image.open(path)
        exif = image.getexif()
        degrees, minutes, seconds = (float(part) for part in exif.get_ifd(_GPS)[2])
        exif.get_ifd(_GPS)[2] = (degrees, minutes, seconds + 3600 * BY_M * _DEGREES_PER_M)
        image.save(spoiled / path.name, quality="keep", exif=exif)


def with_pycolmap(photos: Path, work: Path) -> None:
    """PyCOLMAP's incremental mapper with position priors, on the same verified matches."""
    images = load_image_set(photos)
    database, out = work / "priors.db", work / "pycolmap"
    shutil.copy(work / "complete" / "database.db", database)
    out.mkdir(exist_ok=True)
    with pycolmap.Database.open(str(database)) as opened:
        for image in opened.read_all_images():
            prior = pycolmap.PosePrior()
            prior.position = images.geo.enu_m[images.names.index(image.name)]
            prior.position_covariance = np.diag(images.geo.sigma_m[0] ** 2)
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
            prior.corr_data_id = image.data_id
            opened.write_pose_prior(prior)
    options = pycolmap.IncrementalPipelineOptions(use_prior_position=True, random_seed=0, num_threads=1)
    models = pycolmap.incremental_mapping(str(database), str(photos), str(out), options)
    model = max(models.values(), key=lambda one: one.num_reg_images())
    centres = {image.name: image.projection_center() for image in model.images.values()}
    residual = np.array([centres[name] - images.geo.enu_m[images.names.index(name)] for name in centres])
    rms = np.sqrt((residual**2).mean(axis=0))
    poses = np.array([image.cam_from_world().matrix() for image in model.images.values()])
    focal = " ".join(f"{camera.mean_focal_length():.1f}" for camera in model.cameras.values())
    print(
        f"\nPyCOLMAP with position priors: {len(centres)} registered, RMS {rms[0]:.2f} {rms[1]:.2f} {rms[2]:.2f} m, "
        f"{np.hypot(rms[0], rms[1]):.2f} m horizontally, focal {focal} px, tilt {tilt_deg(poses):.2f} degrees"
    )


def rendered(scenes: int, records: int, work: Path) -> None:
    print("| relief | models | focal error (%) | ratio | position RMS (m) | of aligned only | ratio | record kept |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for relief in (0.0, 0.02):
        rows = [
            one
            for seed in range(scenes)
            for one in one_flight(relief, seed, records, work / f"flight-{relief:g}-{seed}")
        ]
        focal, focal_sigma, position, sigma, aligned, kept = np.array(rows).T
        rms = [float(np.sqrt((values**2).mean())) for values in (focal, focal_sigma, position, sigma, aligned)]
        print(
            f"| {100 * relief:g} % | {len(rows)} | {100 * rms[0]:.2f} | {rms[0] / rms[1]:.2f} | {rms[2]:.2f} "
            f"| {rms[4]:.2f} | {rms[2] / rms[3]:.2f} | {100 * kept.mean():.0f} % |",
            flush=True,
        )


def one_flight(relief: float, seed: int, records: int, folder: Path) -> list[tuple[float, ...]]:
    """Errors and deviations of one rendered flight with records drawn several times."""
    rng = np.random.default_rng([seed, int(1000 * relief)])
    scene = make_scene(SceneConfig(num_images=50, size_wh=(800, 600), ground=GroundConfig(relief=relief), seed=seed))
    if not (folder / "truth.json").exists():
        write_photographs(scene, folder, exif_focal=True)
    # without GPS, and with a record that has no say: the model of the photographs alone
    config = PipelineConfig(dense=False, mapper="tracks", gps="off", focal_deviation=1.0)
    run = reconstruct(folder / "images", folder / "out", config)
    free, model = run.adjusted[0], run.models[0]
    assert not free.focal, "the record had a say"
    scale = HEIGHT_M / GroundConfig().height_m
    enu_from_world = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    truth = scale * camera_centres(scene.cam_from_world) @ enu_from_world.T
    true_px = float(scene.focal_px[0])
    rows = []
    for _ in range(records):
        geo = recorded(run.images, truth, rng)
        px = true_px * (1 + FOCAL_ERROR * rng.standard_normal())
        focal = FocalPriors(focal_px=np.array([px]), sigma_px=np.array([EXIF_DEVIATION * px]))
        settled = settle_focal_lengths(free, focal, config.adjust)
        judged, found = georeference(settled, free, geo, "auto", config.adjust, focal)
        assert found.mode == "prior", found.problem
        aligned, _ = georeference(settled, free, geo, "align", config.adjust, focal)
        (camera,) = judged.result.model.cameras
        kept = [entry is not None and entry.is_kept for entry in judged.result.focal]
        rows.append(
            (
                focal_length_px(camera) / true_px - 1,
                judged.uncertainty.camera_params[0][0] / true_px,
                rms(judged.result.model, truth),
                float(np.sqrt((judged.uncertainty.position**2).mean() / 3)),
                rms(aligned.result.model, truth),
                float(any(kept)),
            )
        )
    print(f"<!-- relief {relief:g}, seed {seed}: {len(model.image_index)} images, free {free.model.cameras[0]} -->")
    return rows


def recorded(images: ImageSet, truth: np.ndarray, rng: np.random.Generator) -> GeoPositions:
    return GeoPositions(
        lat_lon_alt=np.zeros((images.num_images, 3)),
        enu_m=truth + NOISE_M * rng.standard_normal(truth.shape),
        sigma_m=np.full(truth.shape, NOISE_M),
        origin=(0.0, 0.0, 0.0),
        is_ellipsoidal=False,
    )


def rms(model: Reconstruction, truth: np.ndarray) -> float:
    """Root mean square error of a coordinate of a position."""
    return float(np.sqrt(((camera_centres(model.cam_from_world) - truth[model.image_index]) ** 2).mean()))


if __name__ == "__main__":
    main()
