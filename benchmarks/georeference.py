"""GPS positions and recorded focal lengths: a real flight in metres, and rendered flights with known truth.

    python benchmarks/georeference.py real PHOTOS [--work WORK]
    python benchmarks/georeference.py rendered [--scenes 4] [--records 5] [--work WORK]
    python benchmarks/georeference.py observed [--scenes 20]
    python benchmarks/georeference.py strips

`real`: one command on photographs with GPS positions, with three scene graphs, then with three positions moved by 100 m
(the EXIF blocks of copies are rewritten), then PyCOLMAP's mapper with position priors on the same matches. Tilt: of
the mean viewing direction, which a gimbal keeps straight down, against the vertical.

`rendered`: 50 photographs straight down at ground with a relief of 0 and 2 % of the height. EXIF says a focal length
that is wrong by 1 % (standard deviation), positions have a noise of 2 m. Each scene is rendered and reconstructed once;
records are drawn anew for each finished model. Ratio: root mean square error over root mean square reported deviation.

`observed`: the same flights without photographs. What the true cameras see of points on the ground, with a noise of
0.3 px, is adjusted, once for each scene with one draw of records; then in still air, which turns cameras and moves them
off their lines a tenth as much.

`strips`: photographs along a road from 60 m above it, one every 15 m, that see a few points of the ground and
nothing of other lines. Their start turns a little from photograph to photograph and is adjusted alone; then with
positions that have a noise of 2 m, of which a fifth may be 100 m off, or with a noise of 30 m that nobody says.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pycolmap
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import focal_length_px, make_camera
from anchorsfm.geometry.transforms import camera_centres, compose, fit_similarity, invert
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
STEP_M, STRIP_FOCAL_PX, STRIP_WH, STRIP_POINTS = 15.0, 900.0, (1000, 750), 30
"""Of strips: points on the ground for each photograph."""
_GPS = 0x8825
_DEGREES_PER_M = 1 / 111_195


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("real", "rendered", "observed", "strips"))
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
    elif args.kind == "observed":
        observed(args.scenes or 20)
    else:
        strips()


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


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A line of photographs, and what is recorded of it."""

    name: str
    photographs: int = 300
    turn_deg: float = 40.0
    """Of the road, in all."""
    drift_deg: tuple[float, float, float] = (0.1, 0.05, 0.1)
    """Rotation that the start adds from one photograph to the next."""
    k2: float = 0.0
    """Of the lens; models have one term only."""
    noise_m: float = NOISE_M
    wrong: float = 0.0
    """Share of positions that are 100 m off."""
    missing: float = 0.0


STRIPS = (
    Strip(name="150", photographs=150),
    Strip(name="300", drift_deg=(0.15, 0.1, 0.1)),
    Strip(name="300, the road is straight", turn_deg=0.0),
    Strip(name="300, a fifth is 100 m off", wrong=0.2),
    Strip(name="300, half is missing", missing=0.5),
    Strip(name="300, round by 330 degrees", turn_deg=330.0, drift_deg=(0.15, 0.1, 0.1)),
    Strip(name="300, a lens that the model has not", drift_deg=(0.15, 0.1, 0.1), k2=-0.08),
    Strip(name="300, noise of 30 m", noise_m=30.0),
    Strip(name="300, noise of 300 m", noise_m=300.0),
)


def strips() -> None:
    """Long lines of photographs: what the model alone is off, and with positions."""
    print(
        "| photographs | alone: RMS (m) | stated | mode | RMS east, north, up (m) | stated | moved (m) "
        "| outliers, wrong ones among them | CPU s | problem |"
    )
    print("|---|---:|---:|---|---|---:|---:|---:|---:|---|")
    for number, case in enumerate(STRIPS):
        strip(case, np.random.default_rng(number))


def strip(case: Strip, rng: np.random.Generator) -> None:
    count, config = case.photographs, AdjustConfig()
    truth, tracks = strip_of_photographs(rng, case)
    start = drifted(truth, np.array(case.drift_deg))
    free = adjust_model(start, tracks, config, working_scale=np.ones(count), held=Held.nothing(start))
    assert len(free.model.image_index) == count, "photographs are missing"
    centres, own = (camera_centres(model.cam_from_world) for model in (truth, free.model))
    scale, pose = fit_similarity(own, centres)
    alone = scale * own @ pose[:, :3].T + pose[:, 3] - centres
    geo = recorded(centres, rng)
    enu_m = geo.enu_m + np.sqrt(max(case.noise_m**2 - NOISE_M**2, 0)) * rng.standard_normal(centres.shape)
    far = rng.permutation(count)[: int(case.wrong * count)]
    way = rng.standard_normal((len(far), 3))
    enu_m[far] += BY_M * way / np.linalg.norm(way, axis=1, keepdims=True)
    enu_m[rng.permutation(count)[: int(case.missing * count)]] = np.nan
    no_record = FocalPriors(focal_px=np.array([np.nan]), sigma_px=np.array([np.nan]), is_assumed=np.zeros(1, bool))
    settled = settle_focal_lengths(free, no_record, config)
    began = time.process_time()
    judged, found = georeference(settled, free, replace(geo, enu_m=enu_m), "auto", config, no_record)
    seconds = time.process_time() - began
    error = camera_centres(judged.result.model.cam_from_world) - centres
    deviations = [np.sqrt((one.uncertainty.position**2).mean() / 3) for one in (settled, judged)]
    placed = "| | |"
    if found.mode != "check":
        off = " ".join(f"{value:.2f}" for value in np.sqrt((error**2).mean(axis=0)))
        placed = f"| {off} | {deviations[1]:.2f} | {found.straightened_m or 0:.0f}"
    outliers = np.flatnonzero(found.outliers)
    print(
        f"| {case.name} | {np.sqrt((alone**2).mean()):.1f} | {scale * deviations[0]:.1f} | {found.mode} {placed} "
        f"| {len(outliers)}, {len(np.intersect1d(outliers, far))} of {len(far)} | {seconds:.0f} "
        f"| {found.problem or ''} |",
        flush=True,
    )


def strip_of_photographs(rng: np.random.Generator, case: Strip) -> tuple[Reconstruction, Tracks]:
    """Cameras above a road, in metres with z up, and what they see of the ground."""
    count = case.photographs
    heading = np.radians(case.turn_deg) * np.linspace(0, 1, count)
    along = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    road = np.cumsum(STEP_M * along, axis=0)
    centres = np.c_[road, np.full(count, HEIGHT_M)] + rng.normal(0, 0.7, (count, 3))
    ahead = Rotation.from_rotvec(np.c_[np.zeros((count, 2)), heading]).as_matrix() @ np.diag([1.0, -1.0, -1.0])
    rotation = Rotation.from_rotvec(rng.normal(0, 0.02, (count, 3))).as_matrix() @ np.swapaxes(ahead, 1, 2)
    poses = np.concatenate([rotation, -(rotation @ centres[:, :, None])], axis=2)
    near = rng.integers(count, size=STRIP_POINTS * count)
    points = np.c_[road[near] + rng.uniform(-40, 40, (len(near), 2)), rng.uniform(0, 6, len(near))]
    size = np.array(STRIP_WH)
    camera = make_camera("SIMPLE_RADIAL", STRIP_FOCAL_PX, *STRIP_WH)
    image, point, xy = [], [], []
    for view, pose in enumerate(poses):
        close = np.flatnonzero(np.abs(points[:, :2] - road[view]).max(axis=1) < 80)
        seen = points[close] @ pose[:, :3].T + pose[:, 3]
        plane = seen[:, :2] / seen[:, 2:]
        at = size / 2 + STRIP_FOCAL_PX * plane * (1 + case.k2 * (plane**2).sum(axis=1, keepdims=True) ** 2)
        at += KEYPOINT_PX * rng.standard_normal(at.shape)
        inside = ((at >= 0) & (at < size)).all(axis=1)
        image.append(np.full(int(inside.sum()), view))
        point.append(close[inside])
        xy.append(at[inside])
    observed = np.concatenate(point)
    twice = np.bincount(observed, minlength=len(points)) >= 2
    order = np.argsort(observed, kind="stable")
    order = order[twice[observed[order]]]
    renumbered = np.cumsum(twice) - 1
    tracks = Tracks(
        obs_point=renumbered[observed[order]], obs_image=np.concatenate(image)[order], obs_xy=np.concatenate(xy)[order]
    )
    model = Reconstruction(
        image_index=np.arange(count),
        cam_from_world=poses,
        cameras=(camera,),
        camera_index=np.zeros(count, np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks.empty(),
    )
    return model, tracks


def drifted(truth: Reconstruction, drift_deg: np.ndarray) -> Reconstruction:
    """Each photograph turned a little more than the one before, and moved as it then moves; 1 % of focal length."""
    links = Rotation.from_rotvec(np.radians(drift_deg) * np.ones((len(truth.image_index), 3)))
    relative = compose(truth.cam_from_world[1:], invert(truth.cam_from_world[:-1]))
    turned = np.concatenate([links[1:].as_matrix(), np.zeros((len(relative), 3, 1))], axis=2)
    poses = [truth.cam_from_world[0]]
    for step in compose(turned, relative):
        poses.append(compose(step[None], poses[-1][None])[0])
    camera = make_camera("SIMPLE_RADIAL", 1.01 * STRIP_FOCAL_PX, *STRIP_WH)
    return replace(truth, cam_from_world=np.stack(poses), cameras=(camera,))


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
