"""GPS positions and recorded focal lengths: a real flight in metres, and rendered flights with known truth.

    python benchmarks/georeference.py real PHOTOS [--work WORK]
    python benchmarks/georeference.py rendered [--scenes 4] [--records 5] [--work WORK]
    python benchmarks/georeference.py observed [--scenes 20]

`real`: one command on photographs with GPS positions, with three scene graphs, then with three positions moved by 100 m
(the EXIF blocks of copies are rewritten), then PyCOLMAP's mapper with position priors on the same matches. Tilt: of
the mean viewing direction, which a gimbal keeps straight down, against the vertical.

`rendered`: 50 photographs straight down at ground with a relief of 0 and 2 % of the height. EXIF says a focal length
that is wrong by 1 % (standard deviation), positions have a noise of 2 m. Each scene is rendered and reconstructed once;
records are drawn anew for each finished model. Ratio: root mean square error over root mean square reported deviation.

`observed`: the same flights without photographs. What the true cameras see of points on the ground, with a noise of
0.3 px, is adjusted, once for each scene with one draw of records; then in still air, which turns cameras and moves them
off their lines a tenth as much.
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
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import focal_length_px, make_camera
from anchorsfm.geometry.transforms import camera_centres, compose
from anchorsfm.io.images import load_image_set
from anchorsfm.mapping.georeference import georeference
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.results.record import ModelReport
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.synthetic import GroundConfig, SceneConfig, SyntheticScene, make_scene, write_photographs
from anchorsfm.synthetic.scenes import cast_pixels, project, rays
from anchorsfm.tracks.adjust import AdjustResult, adjust_model
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_prior import FocalPriors, settle_focal_lengths

GRAPHS = ("auto", "complete", "logwin-7")
MOVED, BY_M = (2, 9, 14), 100.0
HEIGHT_M, NOISE_M, FOCAL_ERROR, EXIF_DEVIATION = 60.0, 2.0, 0.01, 0.015
POINTS_OF_IMAGE, KEYPOINT_PX, STILL = 30, 0.3, 0.1
_GPS = 0x8825
_DEGREES_PER_M = 1 / 111_195


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("real", "rendered", "observed"))
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--scenes", type=int, help="of each kind (default: 4 rendered ones, 20 without photographs)")
    parser.add_argument("--records", type=int, default=5, help="draws for each rendered scene")
    parser.add_argument("--work", type=Path, help="keep photographs and results here (default: a temporary folder)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-georeference-"))
    work.mkdir(parents=True, exist_ok=True)
    if args.kind == "real":
        real(args.photos, work)
    elif args.kind == "rendered":
        rendered(args.scenes or 4, args.records, work)
    else:
        observed(args.scenes or 20)


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
    first, moved = (positions_of(load_image_set(folder)) for folder in (photos, spoiled))
    shift = moved.enu_m[0] - first.enu_m[0]  # their frames have different origins
    other = camera_centres(result.models[0].cam_from_world) - shift
    change = np.linalg.norm(other - camera_centres(truth.cam_from_world), axis=1)
    print(f"\npositions changed by {np.sqrt((change**2).mean()):.3f} m (RMS)")
    with_pycolmap(photos, work)


def row(name: str, result: RunResult) -> None:
    model, found = result.models[0], result.report.models[0].georeference
    assert found is not None and found.rms_m is not None, "the model has no positions to compare with"
    east, north, up = found.rms_m
    sigma_px = focal_deviation_px(result.report.models[0])
    outliers = [entry.name for entry in found.residuals if entry.outlier]
    print(
        f"| {name} | {len(model.image_index)} | {east:.2f} {north:.2f} {up:.2f} | {np.hypot(east, north):.2f} "
        f"| {focal_length_px(model.cameras[0]):.1f} | {sigma_px:.1f} | {tilt_deg(model.cam_from_world):.2f} "
        f"| {' '.join(outliers)} |",
        flush=True,
    )


def positions_of(images: ImageSet) -> GeoPositions:
    assert images.geo is not None, "no positions are recorded"
    return images.geo


def focal_deviation_px(found: ModelReport) -> float:
    if found.focal_lengths:
        return found.focal_lengths[0].sigma_px
    assert found.uncertainty is not None
    deviations = found.uncertainty.camera_params[0]
    return deviations[0] if deviations is not None else np.nan


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
    geo = positions_of(images)
    database, out = work / "priors.db", work / "pycolmap"
    shutil.copy(work / "complete" / "database.db", database)
    out.mkdir(exist_ok=True)
    with pycolmap.Database.open(str(database)) as opened:
        for image in opened.read_all_images():
            prior = pycolmap.PosePrior()
            prior.position = geo.enu_m[images.names.index(image.name)]
            prior.position_covariance = np.diag(geo.sigma_m[0] ** 2)
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
            prior.corr_data_id = image.data_id
            opened.write_pose_prior(prior)
    options = pycolmap.IncrementalPipelineOptions(use_prior_position=True, random_seed=0, num_threads=1)
    models = pycolmap.incremental_mapping(str(database), str(photos), str(out), options)
    model = max(models.values(), key=lambda one: one.num_reg_images())
    centres = {image.name: image.projection_center() for image in model.images.values()}
    residual = np.array([centres[name] - geo.enu_m[images.names.index(name)] for name in centres])
    rms = np.sqrt((residual**2).mean(axis=0))
    poses = np.array([image.cam_from_world().matrix() for image in model.images.values()])
    focal = " ".join(f"{camera.mean_focal_length():.1f}" for camera in model.cameras.values())
    print(
        f"\nPyCOLMAP with position priors: {len(centres)} registered, RMS {rms[0]:.2f} {rms[1]:.2f} {rms[2]:.2f} m, "
        f"{np.hypot(rms[0], rms[1]):.2f} m horizontally, focal {focal} px, tilt {tilt_deg(poses):.2f} degrees"
    )


def rendered(scenes: int, records: int, work: Path) -> None:
    heads()
    for relief in (0.0, 0.02):
        drawn = [
            one
            for seed in range(scenes)
            for one in rendered_flight(relief, seed, records, work / f"flight-{relief:g}-{seed}")
        ]
        flights(f"{100 * relief:g} %", drawn)


def observed(scenes: int) -> None:
    heads()
    for jitter in (1.0, STILL):
        for relief in (0.0, 0.02):
            drawn = [one for seed in range(scenes) for one in observed_flight(relief, jitter, seed)]
            flights(f"{100 * relief:g} %{'' if jitter == 1 else ', still air'}", drawn)


def heads() -> None:
    print("| relief | models | focal error (%) | ratio | position RMS (m) | of aligned only | ratio | record kept |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")


def flights(name: str, rows: list[tuple[float, ...]]) -> None:
    """Root mean squares of rows (focal error, deviation; position error, deviation, error if aligned only; kept)."""
    focal, focal_sigma, position, sigma, aligned, kept = np.array(rows).T
    rms = [float(np.sqrt((values**2).mean())) for values in (focal, focal_sigma, position, sigma, aligned)]
    print(
        f"| {name} | {len(rows)} | {100 * rms[0]:.2f} | {rms[0] / rms[1]:.2f} | {rms[2]:.2f} "
        f"| {rms[4]:.2f} | {rms[2] / rms[3]:.2f} | {100 * kept.mean():.0f} % |",
        flush=True,
    )


def rendered_flight(relief: float, seed: int, records: int, folder: Path) -> list[tuple[float, ...]]:
    """Errors and deviations of one rendered flight with records drawn several times."""
    scene = flight(relief, 1.0, seed)
    if not (folder / "truth.json").exists():
        write_photographs(scene, folder, exif_focal=True)
    # without GPS, and with a record that has no say: the model of the photographs alone
    config = PipelineConfig(dense=False, mapper="tracks", gps="off", focal_deviation=1.0)
    run = reconstruct(folder / "images", folder / "out", config)
    assert not run.adjusted[0].focal, "the record had a say"
    return drawn(run.adjusted[0], scene, config.adjust, records, np.random.default_rng([seed, int(1000 * relief)]))


def observed_flight(relief: float, jitter: float, seed: int) -> list[tuple[float, ...]]:
    """The same of one flight whose observations are made, with records drawn once."""
    rng = np.random.default_rng([seed, int(1000 * relief), int(10 * jitter)])
    scene, config = flight(relief, jitter, seed), AdjustConfig()
    tracks = build_tracks(observations(scene, rng), scene.num_images)
    wrong = 0.001 * rng.standard_normal((2, scene.num_images, 3))
    turned = np.concatenate([Rotation.from_rotvec(wrong[0]).as_matrix(), wrong[1, :, :, None]], axis=2)
    start = Reconstruction(
        image_index=np.arange(scene.num_images),
        cam_from_world=compose(turned, scene.cam_from_world),
        cameras=(make_camera("SIMPLE_RADIAL", 1.03 * float(scene.focal_px[0]), *scene.config.size_wh),),
        camera_index=np.zeros(scene.num_images, np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks.empty(),
    )
    free = adjust_model(start, tracks, config, working_scale=np.ones(scene.num_images), held=Held.nothing(start))
    return drawn(free, scene, config, 1, rng)


def flight(relief: float, jitter: float, seed: int) -> SyntheticScene:
    ground = GroundConfig(relief=relief)
    return make_scene(SceneConfig(num_images=50, size_wh=(800, 600), ground=ground, jitter=jitter, seed=seed))


def observations(scene: SyntheticScene, rng: np.random.Generator) -> KeypointMatches:
    """Points of the ground in all photographs that see them, each matched from one to the next."""
    size = np.array(scene.config.size_wh)
    places = []
    for image in range(scene.num_images):
        xy = size * rng.uniform(size=(POINTS_OF_IMAGE, 2))
        origin, direction = rays(scene, image, xy)
        places.append(origin + cast_pixels(scene, image, xy).distance[:, None] * direction)
    points = np.concatenate(places)
    last = np.full(len(points), -1)
    before = np.zeros((len(points), 2))
    parts = []
    for image in range(scene.num_images):
        xy, depth = project(scene, image, points)
        near = np.flatnonzero((depth > 0) & ((xy >= 0) & (xy < size)).all(axis=1))
        seen = near[np.abs(cast_pixels(scene, image, xy[near]).distance - depth[near]) < 1e-3 * depth[near]]
        at = xy[seen] + KEYPOINT_PX * rng.standard_normal((len(seen), 2))
        again = last[seen] >= 0
        rows = seen[again]
        parts.append((last[rows], np.full(len(rows), image), before[rows], at[again]))
        last[seen], before[seen] = image, at
    image_i, image_j, xy_i, xy_j = (np.concatenate(part) for part in zip(*parts, strict=True))
    return KeypointMatches(
        image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=np.full(len(image_i), 10.0)
    )


def drawn(
    free: AdjustResult, scene: SyntheticScene, config: AdjustConfig, records: int, rng: np.random.Generator
) -> list[tuple[float, ...]]:
    """What `flights` takes, of a model with each draw of records."""
    scale = HEIGHT_M / GroundConfig().height_m
    enu_from_world = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    truth = scale * camera_centres(scene.cam_from_world) @ enu_from_world.T
    true_px = float(scene.focal_px[0])
    rows: list[tuple[float, ...]] = []
    for _ in range(records):
        geo = recorded(truth, rng)
        px = true_px * (1 + FOCAL_ERROR * rng.standard_normal())
        focal = FocalPriors(
            focal_px=np.array([px]), sigma_px=np.array([EXIF_DEVIATION * px]), is_assumed=np.zeros(1, bool)
        )
        settled = settle_focal_lengths(free, focal, config)
        judged, found = georeference(settled, free, geo, "auto", config, focal)
        assert found.mode == "prior", found.problem
        aligned, _ = georeference(settled, free, geo, "align", config, focal)
        (camera,), (deviations,) = judged.result.model.cameras, judged.uncertainty.camera_params
        assert deviations is not None
        kept = [entry is not None and entry.is_kept for entry in judged.result.focal]
        rows.append(
            (
                focal_length_px(camera) / true_px - 1,
                deviations[0] / true_px,
                rms(judged.result.model, truth),
                float(np.sqrt((judged.uncertainty.position**2).mean() / 3)),
                rms(aligned.result.model, truth),
                float(any(kept)),
            )
        )
    return rows


def recorded(truth: np.ndarray, rng: np.random.Generator) -> GeoPositions:
    return GeoPositions(
        lat_lon_alt=np.zeros(truth.shape),
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
