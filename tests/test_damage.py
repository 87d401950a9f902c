"""Every kind of file that the program reads, damaged in many ways, given to every command that reads it.

Allowed are: one line and exit code 2, or a result that is sound; where the structure of the file tells that something
is wrong, only the former. `pytest -n 0 -s tests/test_damage.py | grep damage:` shows how many cases there are.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from anchorsfm.colmap.write import write_models
from anchorsfm.evaluation import evaluate_poses, read_poses
from anchorsfm.export.run import export
from anchorsfm.frontend.mast3r.weights import load_network, resolve_weights
from anchorsfm.geometry.geodesy import geodetic_from_enu
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.io.gcp import read_gcp
from anchorsfm.io.images import load_image_set
from anchorsfm.io.masks import with_masks
from anchorsfm.io.owned import FolderPart, OwnedFolder
from anchorsfm.io.pictures import load_rgb
from anchorsfm.io.ply import PointCloud, read_ply
from anchorsfm.io.rig_config import read_rig_config
from anchorsfm.io.store import Store, to_json
from anchorsfm.localisation.index import VERSION, IndexSettings, ModelIndex, read_index, write_index
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.known import read_known
from anchorsfm.mapping.pose_files import read_pose_file
from anchorsfm.pairing.pairs_file import read_pairs
from anchorsfm.panorama.record import PanoramaViews
from anchorsfm.panorama.record import read_record as read_views
from anchorsfm.panorama.record import record_text as views_record
from anchorsfm.report.folder import make_page
from anchorsfm.results.errors import read_errors, write_errors
from anchorsfm.results.model import read_models
from anchorsfm.results.reading import read_report
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.finished import read_run
from anchorsfm.run.settings import plain, read_config
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.poses import PoseSet
from anchorsfm.scene.progress import SILENT
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.find import Crop, find
from anchorsfm.transform.record import TransformRecord, make_step, read_transforms
from anchorsfm.video.config import VideoConfig
from anchorsfm.video.frames import frame_files, make_frames
from anchorsfm.video.record import VideoFrames, read_record
from anchorsfm.viewer.clouds import PointFilter, camera_colours, read_dense, sparse_cloud
from anchorsfm.viewer.selection import facts_markdown, image_facts
from anchorsfm.viewer.shown import show_model
from anchorsfm.viewer.sources import ViewedFolder, read_folder
from damage import Damage, Outcomes, damaged_bytes, damaged_json, not_files, remove, restored
from geotags import geotag, geotagged
from point_scene import make_lens_scene
from report_scene import write_synthetic_run
from tiny_network import DUST3R, write_weights
from video_files import panned, write_video

NAMES = [f"{k:04d}.jpg" for k in range(5)]
PARTS = ("cameras", "images", "points3D", "rigs", "frames")
EVERYTHING = bool(os.environ.get("ANCHORSFM_ALL_DAMAGE"))
"""Otherwise, of the cases that take long, some."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a small finished run, with the photographs in OUT/photos."""
    output = tmp_path_factory.mktemp("damage") / "out"
    model = small(write_synthetic_run(output, len(NAMES) + 1, photo_wh=(64, 48), num_dense=300)[0])
    shutil.rmtree(output / "sparse")
    write_models(output / "sparse", [model], NAMES)
    report = json.loads((output / "report.json").read_text())
    (output / "uncertainty.json").write_text(json.dumps([entry["uncertainty"] for entry in report["models"]]))
    return output


def small(model: Reconstruction) -> Reconstruction:
    """The model with few points: cases are many."""
    from dataclasses import replace

    from anchorsfm.scene.edit import select_observations

    tracks, old = select_observations(model.tracks, model.tracks.obs_point < 60)
    tracks = replace(tracks, obs_xy=tracks.obs_xy / 25)
    camera = replace(model.cameras[0], width=64, height=48, params=(60.0, 32.0, 24.0, 0.01))
    kept = replace(model, points=model.points[old], rgb=model.rgb[old], error_px=model.error_px[old], tracks=tracks)
    return replace(kept, cameras=(camera,))


@pytest.fixture(scope="module")
def text_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a text model and nothing else."""
    from anchorsfm.colmap.models import read_reconstruction

    output = tmp_path_factory.mktemp("damage") / "text"
    model, names = read_reconstruction(run / "sparse" / "0")
    write_models(output / "sparse", [model], list(names), text=True)
    return output


# ------------------------------------------------------------------------------------------------------- commands


def evaluate(output: Path, truth: PoseSet) -> PoseSet:
    poses = read_poses(output)
    evaluate_poses(poses, truth)
    evaluate_poses(truth, poses)
    return poses


def known(output: Path, photos: Path) -> dict[int, np.ndarray]:
    return read_known(KnownConfig(model=output / "sparse" / "0"), load_image_set(photos)).poses


def view(output: Path) -> ViewedFolder:
    """All that `view` computes before and while a page is open."""

    class Scene:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **options: Scene()

    content = read_folder(output)
    for viewed in content.models:
        shown = show_model(Scene(), viewed)
        for colour in ("photographs", "reprojection error", "track length"):
            sparse_cloud(viewed, shown.frame, colour, PointFilter())
        for colour in ("plain", "points seen", "reprojection error", "position uncertainty"):
            camera_colours(viewed, colour)
        facts_markdown(image_facts(viewed, 0))
        if viewed.cloud_file is not None:
            read_dense(viewed, shown.frame, 1000)
    return content


def exported(output: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    export(output, ("tum", "colmap-binary", "transforms"), target)
    return target


def page(output: Path) -> str:
    return make_page(output).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- models


def sound_poses(poses: PoseSet) -> str | None:
    """What is wrong with poses that were read from a damaged file."""
    if poses.names != tuple(NAMES):
        return None if len(set(poses.names)) == len(NAMES) else f"images {poses.names}"
    rotation = poses.cam_from_world[:, :, :3]
    unit = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max() < 1e-2
    return None if unit and np.isfinite(poses.cam_from_world).all() and (poses.focal_px > 0).all() else "not poses"


def sound_folder(reference: ViewedFolder) -> Callable[[ViewedFolder], str | None]:
    def check(content: ViewedFolder) -> str | None:
        before, after = reference.models[0].model, content.models[0].model
        same = len(before.points) == len(after.points) and len(before.image_index) == len(after.image_index)
        same = same and np.array_equal(before.tracks.obs_image, after.tracks.obs_image)
        finite = np.isfinite(after.points).all() and np.isfinite(after.cam_from_world).all()
        return None if same and finite else "another model"

    return check


def model_cases(path: Path) -> Iterator[Damage]:
    binary = path.suffix == ".bin"
    with restored(path) as content:
        for damage in damaged_bytes(content, exact_cuts=binary and path.name != "points3D.bin", flips=20):
            damage.apply(path)
            yield damage


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
@pytest.mark.parametrize("part", PARTS)
def test_models(run: Path, text_run: Path, tmp_path: Path, part: str, suffix: str) -> None:
    output, outcomes = run if suffix == ".bin" else text_run, Outcomes(part + suffix)
    truth, reference = read_poses(output), view(output)
    photographs = output / "report.json"
    for damage in model_cases(output / "sparse" / "0" / (part + suffix)):
        all_parts = part != "points3D"  # which only some commands read
        exact = damage.exact and all_parts
        if part == "images" and damage.name.startswith("a "):
            exact = True
        outcomes.add(f"evaluate, {damage.name}", lambda: evaluate(output, truth), exact=exact, check=sound_poses)
        outcomes.add(f"known, {damage.name}", lambda: known(output, run / "photos"), exact=exact)
        whole = damage.exact or (part == "points3D" and suffix == ".bin" and damage.name.startswith(("cut", "follow")))
        outcomes.add(f"view, {damage.name}", lambda: view(output), exact=whole, check=sound_folder(reference))
        outcomes.add(f"export, {damage.name}", lambda: exported(output, tmp_path / "export"), exact=whole)
        if photographs.exists() and outcomes.cases % 60 == 4:
            outcomes.add(f"report, {damage.name}", lambda: page(output))
    outcomes.require_none()


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_pieces_of_text_and_duplicates(text_run: Path, run: Path, suffix: str) -> None:
    """Lines removed, doubled and swapped; a record of a binary file twice."""
    outcomes = Outcomes(f"records{suffix}")
    output = run if suffix == ".bin" else text_run
    reference = view(output)
    for part in PARTS if suffix == ".txt" else ():
        path = output / "sparse" / "0" / f"{part}.txt"
        with restored(path) as content:
            lines = content.decode().splitlines(keepends=True)
            for k in range(len(lines)):
                for name, changed in (("removed", lines[:k] + lines[k + 1 :]), ("doubled", lines[: k + 1] + lines[k:])):
                    path.write_text("".join(changed))
                    comment = lines[k].startswith("#")
                    outcomes.add(
                        f"{part}, line {k} {name}",
                        lambda: view(output),
                        exact=not comment,
                        check=sound_folder(reference),
                    )
    if suffix == ".bin":
        path = output / "sparse" / "0" / "cameras.bin"
        with restored(path) as content:
            path.write_bytes((2).to_bytes(8, "little") + content[8:] * 2)
            outcomes.add("camera twice", lambda: view(output), exact=True)
            for count in (2**16, 2**32, 2**63, 2**64 - 1):
                path.write_bytes(count.to_bytes(8, "little") + content[8:])
                outcomes.add(f"{count} cameras", lambda: view(output), exact=True)
    outcomes.require_none()


# ----------------------------------------------------------------------------------------------------- JSON files


def test_report_json(run: Path, tmp_path: Path) -> None:
    outcomes, accepted = Outcomes("report.json"), 0
    path, often = run / "report.json", 1 if EVERYTHING else 40
    (run / "config.yaml").write_text(yaml.safe_dump(plain(PipelineConfig())))
    assert read_run(run).names[:5] == tuple(NAMES)
    with restored(path) as content:
        cases = damaged_json(json.loads(content), wrongs=None if EVERYTHING else 2)
        for damage in [*cases, *damaged_bytes(content, exact_cuts=False)]:
            damage.apply(path)
            refused = outcomes.refused
            outcomes.add(f"report, {damage.name}", lambda: read_report(path), exact=damage.exact)
            accepted += outcomes.refused == refused
            if outcomes.refused == refused and accepted % often == 0:
                outcomes.add(f"page, {damage.name}", lambda: page(run))
            if outcomes.cases % often == 0 or "image_root" in damage.name:
                outcomes.add(f"view, {damage.name}", lambda: read_folder(run))
                outcomes.add(f"export, {damage.name}", lambda: exported(run, tmp_path / "export"))
                outcomes.add(f"extend, {damage.name}", lambda: read_run(run))
    outcomes.require_none()


def test_uncertainty_json(run: Path) -> None:
    outcomes, path = Outcomes("uncertainty.json"), run / "uncertainty.json"
    with restored(path) as content:
        for damage in [*damaged_json(json.loads(content)), *damaged_bytes(content, exact_cuts=False)]:
            damage.apply(path)
            look = view if EVERYTHING or outcomes.cases % 10 == 0 else read_folder
            outcomes.add(f"view, {damage.name}", lambda look=look: look(run))
    outcomes.require_none()


def test_descriptors_for_localisation(tmp_path: Path) -> None:
    path, rng = tmp_path / "0.safetensors", np.random.default_rng(0)
    settings = IndexSettings(
        version=VERSION, max_image_size=64, max_keypoints=16, contrast_threshold=0.01, max_ratio=0.8
    )
    index = ModelIndex(
        settings=settings,
        num_points=9,
        descriptor=rng.integers(0, 255, (9, 128), np.uint8),
        point=np.arange(9, dtype=np.int32),
        start=np.array([0, 4, 9]),
    )
    write_index(path, index)
    outcomes = Outcomes("0.safetensors")

    def same(found: ModelIndex | None) -> None:
        assert found is None or np.array_equal(found.descriptor, index.descriptor)

    for damage in damaged_bytes(path.read_bytes(), exact_cuts=True):
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_index(path), exact=damage.exact, check=same)
    outcomes.require_none()


def test_errors_of_cameras(tmp_path: Path) -> None:
    path, rng = tmp_path / "0.safetensors", np.random.default_rng(0)
    model = make_lens_scene((Camera(model="PINHOLE", width=8, height=6, params=(9.0, 9.0, 4.0, 3.0)),), 3, 20)
    modes = ErrorModes(
        rotation=rng.standard_normal((2, 3, 3)), position=rng.standard_normal((2, 3, 3)), params=np.zeros((2, 4))
    )
    write_errors(path, modes, NAMES[:3])
    outcomes = Outcomes("errors/0.safetensors")

    def same(found: ErrorModes | None) -> None:
        assert found is None or np.allclose(found.poses, modes.poses, rtol=1e-6)

    for damage in damaged_bytes(path.read_bytes(), exact_cuts=True):
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_errors(path, NAMES[:3], model), exact=damage.exact, check=same)
    outcomes.require_none()


def test_records_of_transforms(tmp_path: Path) -> None:
    step = make_step({"scale": 2.0}, ({"what": "scale"},), Similarity.of(scale=2.0), Crop(), former_up=None,
                     former_metric=False)  # fmt: skip
    path, record = tmp_path / "transform.json", TransformRecord().with_step(0, step)
    path.write_text(to_json(record))
    outcomes = Outcomes("transform.json")
    for damage in [*damaged_bytes(path.read_bytes(), exact_cuts=False), *damaged_json(json.loads(path.read_text()))]:
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_transforms(path), exact=damage.exact)
    outcomes.require_none()


@pytest.mark.parametrize("number", [0, 1], ids=["the way of the model", "the frame of another model"])
def test_places_on_the_earth(run: Path, tmp_path: Path, number: int) -> None:
    output = shutil.copytree(run, tmp_path / "out")
    stored = read_models(output)[0]
    report = json.loads((output / "report.json").read_text())
    report["image_root"] = str(tmp_path)
    (output / "report.json").write_text(json.dumps(report))
    way = Similarity.of(scale=20.0)
    for name, centre in zip(NAMES, camera_centres(stored.model.cam_from_world), strict=True):
        place = geodetic_from_enu(way.points(centre), (50.0, 8.0, 100.0)).tolist()
        geotagged(np.zeros((48, 64, 3), np.uint8), tmp_path / name, tuple(place))
    origin = {"latitude_deg": 50.0, "longitude_deg": 8.0, "altitude_m": 99.0, "altitude_above": "sea level"}
    where = {"latitude_deg": 50.0, "longitude_deg": 8.0, "altitude_m": 98.0}
    image = {"name": NAMES[0], "enu_m": [0.0, 1.0, 2.0], **where, "residual_m": None, "outlier": False}
    entry = {"number": number, "mode": "align", "images": [image], "enu_from_model": way.matrix.tolist()}
    content = {"frame": "metres", "origin": origin, "epsg": None, "models": [entry]}
    path = output / "georeference.json"
    path.write_text(json.dumps(content))
    assert find(stored, TransformConfig(gps=True)).similarity.scale == pytest.approx(20)
    outcomes = Outcomes("georeference.json")
    for damage in [*damaged_bytes(path.read_bytes(), exact_cuts=False), *damaged_json(content)]:
        damage.apply(path)
        outcomes.add(damage.name, lambda: find(stored, TransformConfig(gps=True)))
    outcomes.require_none()


@pytest.mark.parametrize("name", ["transforms.json", "poses.txt"])
def test_files_of_poses(run: Path, tmp_path: Path, name: str) -> None:
    export(run, ("tum", "transforms"), tmp_path / "export")
    (path,) = (tmp_path / "export").glob(f"*/{name}")
    content, outcomes = path.read_bytes(), Outcomes(name)
    damages = list(damaged_bytes(content, exact_cuts=False))
    damages += list(damaged_json(json.loads(content))) if name.endswith(".json") else []

    def sound(found: dict) -> str | None:
        poses = [pose for _, pose in found.values()]
        turned = [np.abs(pose[:, :3] @ pose[:, :3].T - np.eye(3)).max() for pose in poses]
        return "a pose without a rotation" if max(turned, default=0) > 1e-6 else None

    for damage in damages:
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_pose_file(path, NAMES, [(64, 48)] * 5), exact=damage.exact, check=sound)
    outcomes.require_none()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"] if EVERYTHING else ["a.mp4", "a.ts"])
def test_videos(tmp_path: Path, name: str) -> None:
    """Whatever decodes is used; frames are whole or not there."""
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write_video(tmp_path / name, panned(np.linspace(0, 200, 24), size_wh=(128, 96)), codec=codec)
    outcomes, content, output = Outcomes(name), path.read_bytes(), tmp_path / "out"

    def frames() -> tuple[VideoFrames, ...]:
        shutil.rmtree(output, ignore_errors=True)
        folder = FolderPart(owned=OwnedFolder(output))
        return make_frames([path], VideoConfig(), folder, Store(None), SILENT, keep_others=False)

    def sound(made: tuple[VideoFrames, ...]) -> None:
        assert read_record(output) == made and not load_image_set(output).skipped

    few = {} if EVERYTHING else {"cuts": 5, "flips": 4}
    for damage in damaged_bytes(content, exact_cuts=False, **few):
        damage.apply(path)
        outcomes.add(damage.name, frames, exact=damage.exact, check=sound)
    outcomes.require_none()


def masks_of(photos: Path, masks: Path | None = None) -> int:
    """Photographs that are left once their masks have been read."""
    return with_masks(load_image_set(photos, masks=masks), masks, None, alpha=True).num_images


def as_before(photos: int) -> str | None:
    """What is wrong with the number of photographs that are left; those of `NAMES` are whole."""
    return None if photos >= len(NAMES) else f"only {photos} photographs are left"


def test_masks(run: Path, tmp_path: Path) -> None:
    """A mask is read, or named; the photographs are as they were."""
    outcomes = Outcomes("masks")
    pixels = np.random.default_rng(0).integers(0, 2, (48, 64), np.uint8) * 255
    kinds = {"L": pixels, "I;16": pixels.astype(np.uint16) * 257, "RGB": np.stack([pixels] * 3, axis=-1)}
    path = tmp_path / "masks" / f"{NAMES[0]}.png"
    path.parent.mkdir()
    for kind, values in kinds.items():
        Image.fromarray(values).save(path)
        few = {} if EVERYTHING or kind == "L" else {"cuts": 5, "flips": 5}
        for damage in damaged_bytes(path.read_bytes(), exact_cuts=False, **few):
            damage.apply(path)
            outcomes.add(f"{kind}, {damage.name}", lambda: masks_of(run / "photos", path.parent), exact=damage.exact)
            remove(path)
        Image.fromarray(values).save(path)
    for name, values in (
        ("turned", pixels.T), ("another aspect", pixels[:, :48]), ("a row", pixels[:1]),
    ):  # fmt: skip
        Image.fromarray(np.ascontiguousarray(values)).save(path)
        outcomes.add(name, lambda: masks_of(run / "photos", path.parent), exact=True)
    for name, values in (("black", 0 * pixels), ("labels", pixels // 255), ("floats", pixels / np.float32(255))):
        Image.fromarray(values).save(path, "TIFF" if name == "floats" else "PNG")
        outcomes.add(name, lambda: masks_of(run / "photos", path.parent))
    outcomes.require_none()


def test_transparency(run: Path, tmp_path: Path) -> None:
    outcomes, photos = Outcomes("transparency"), tmp_path / "photos"
    shutil.copytree(run / "photos", photos)
    rgba = np.random.default_rng(0).integers(0, 255, (48, 64, 4), np.uint8)
    for name in ("a.png", "a.webp", "a.tif"):
        path = photos / name
        Image.fromarray(rgba).save(path)
        for damage in damaged_bytes(path.read_bytes(), exact_cuts=False, cuts=5, flips=20 if EVERYTHING else 8):
            damage.apply(path)
            outcomes.add(f"{name}, {damage.name}", lambda: masks_of(photos), check=as_before)
        remove(path)
    outcomes.require_none()


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" drone-dji:RtkFlag="50" '
    b'drone-dji:RelativeAltitude="+50.1" drone-dji:RtkStdLat="0.01"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["EXIF", "XMP"])
def test_recorded_positions(tmp_path: Path, kind: str) -> None:
    """Positions are somewhere on the Earth, or there is none; the photograph is used whatever they are."""
    outcomes, path = Outcomes(f"positions, {kind}"), tmp_path / "a.jpg"
    exif, pixels = geotag((46.84, 7.17, 500.0)), Image.new("RGB", (64, 48))

    def sound(images: ImageSet) -> str | None:
        if images.num_images != 1:
            return f"skipped: {images.skipped}"
        if images.geo is None:
            return None
        (latitude, longitude, altitude), sigma = images.geo.lat_lon_alt[0], images.geo.sigma_m[0]
        fits = abs(latitude) <= 90 and abs(longitude) <= 180 and -1000 <= altitude <= 100_000
        return None if fits and (sigma > 0).all() and np.isfinite(images.geo.enu_m).all() else "no place"

    content = exif.tobytes() if kind == "EXIF" else XMP
    wrong = [] if kind == "EXIF" else wrong_packets()
    damages = damaged_bytes(content, exact_cuts=False, cuts=40, flips=1000 if EVERYTHING else 120)
    for damage in [*wrong, *(damage for damage in damages if damage.content is not None)]:
        block = {"exif": damage.content} if kind == "EXIF" else {"exif": exif, "xmp": damage.content}
        pixels.save(path, **block)
        outcomes.add(damage.name, lambda: load_image_set(tmp_path), check=sound)
    outcomes.require_none()


def wrong_packets() -> Iterator[Damage]:
    """What else can lie where cameras put their XMP."""
    value = b'drone-dji:RtkStdLat="%s"'
    for name, content in (
        ("nothing", b""),
        ("entities", b'<!DOCTYPE a [<!ENTITY b "c">]><a>drone-dji &b;</a>'),
        ("nested", b"<a>" * 15_000 + b"drone-dji"),
        ("long", XMP.replace(b"+50.1", b"1" * 60_000)),
        ("another encoding", XMP.decode().encode("utf-16")),
        ("an encoding of no name", b'<?xml version="1.0" encoding="drone-dji"?>' + XMP),
        ("not in its encoding", XMP.replace(b"+50.1", b"\xe9")),
        ("zeros", XMP + bytes(2000)),
        *((f"a deviation of {word}", XMP.replace(value % b"0.01", value % word.encode()))
          for word in ("nan", "-inf", "1e999", "-1", "", "1_0", "0x1")),
    ):  # fmt: skip
        yield Damage(name=name, content=content)


def test_records_of_frames(tmp_path: Path) -> None:
    """A record that cannot be used is as good as none: frames are chosen anew."""
    path = write_video(tmp_path / "a.mp4", panned(np.linspace(0, 60, 8), size_wh=(128, 96)))
    folder = FolderPart(owned=OwnedFolder(tmp_path / "out"))
    make_frames([path], VideoConfig(), folder, Store(None), SILENT, keep_others=False)
    outcomes, record = Outcomes("frames.json"), tmp_path / "out" / "frames.json"

    def usable(found: tuple[VideoFrames, ...]) -> None:
        for video in found:
            assert video.summary() and len(video.names) == len(video.time_s)
            assert all(path.is_relative_to(tmp_path / "out") for path in frame_files(folder, [video]))

    with restored(record) as content:
        cases = damaged_json(json.loads(content), wrongs=None if EVERYTHING else 4)
        for damage in [*cases, *damaged_bytes(content, exact_cuts=False)]:
            damage.apply(record)
            outcomes.add(damage.name, lambda: read_record(tmp_path / "out"), check=usable)
    outcomes.require_none()


def test_config_yaml(tmp_path: Path) -> None:
    """Settings of a run that are given back; JSON is YAML too."""
    outcomes, path = Outcomes("config.yaml"), tmp_path / "config.yaml"
    settings = plain(PipelineConfig())
    content = yaml.safe_dump({name: settings[name] for name in ("seed", "known", "cloud")}).encode()
    keys = ("null", "7", "[a, b]", "{a: b}", "2020-01-01", ".nan", "!!binary aGk=", "'\\e[1m'")
    values = ("!!python/object/apply:os.getpid []", "2020-01-01", "!!set {a}", "&a [*a]", "")
    wrong = [*(f"{key}: 1" for key in keys), *(f"seed: {value}" for value in values), "? ", "seed: 1.5", "seed: [1]"]
    own = [Damage(name=text, content=text.encode(), exact=True) for text in wrong]
    cases = damaged_json(settings, keys=None if EVERYTHING else 12, wrongs=None if EVERYTHING else 3)
    for damage in [*own, *cases, *damaged_bytes(content, exact_cuts=False)]:
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_config(path), exact=damage.exact)
    outcomes.require_none()


def test_truth_json(run: Path, tmp_path: Path) -> None:
    poses = read_poses(run)
    truth = {
        name: {
            "R_cam_from_world": pose[:, :3].tolist(), "t_cam_from_world": pose[:, 3].tolist(),
            "K": [[focal, 0, 32], [0, focal, 24], [0, 0, 1]], "width": 64, "height": 48,
        }
        for name, pose, focal in zip(poses.names, poses.cam_from_world, poses.focal_px.tolist(), strict=True)
    }  # fmt: skip
    outcomes, path = Outcomes("truth"), tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    with restored(path) as content:
        cases = damaged_json(truth, wrongs=None if EVERYTHING else 8)
        for damage in [*cases, *damaged_bytes(content, exact_cuts=False)]:
            damage.apply(path)
            outcomes.add(
                f"evaluate, {damage.name}", lambda: evaluate_poses(poses, read_poses(path)), exact=damage.exact
            )
        path.write_text('{"a": 1, "a": 2}')
        outcomes.add("a name twice", lambda: read_poses(path), exact=True)
    outcomes.require_none()


def test_photographs_json(run: Path, tmp_path: Path) -> None:
    """The record in a folder of copies."""
    outcomes, target = Outcomes("photographs.json"), tmp_path / "export"
    export(run, ("undistorted",), target)
    path = target / "undistorted" / "photographs.json"
    with restored(path) as content:
        for damage in [
            *damaged_json(json.loads(content), keys=4),
            *damaged_bytes(content, exact_cuts=False, cuts=5, flips=5),
        ]:
            damage.apply(path)
            outcomes.add(f"export, {damage.name}", lambda: export(run, ("undistorted",), target))
    outcomes.require_none()


# ---------------------------------------------------------------------------------------------------- other files


def test_ply(run: Path) -> None:
    outcomes, path = Outcomes("ply"), run / "dense" / "0.ply"
    size = len(read_ply(path).xyz)

    def sound(cloud: PointCloud) -> str | None:
        return None if len(cloud.xyz) == size and np.isfinite(cloud.xyz).all() else "another cloud"

    with restored(path) as content:
        for damage in damaged_bytes(content, exact_cuts=True):
            damage.apply(path)
            outcomes.add(f"read, {damage.name}", lambda: read_ply(path), exact=damage.exact, check=sound)
            outcomes.add(f"view, {damage.name}", lambda: view(run))
            if outcomes.cases % 10 == 0:
                outcomes.add(f"report, {damage.name}", lambda: page(run))
        head, mark, body = content.partition(b"end_header\n")
        for old, new in (
            (b"vertex 300", b"vertex -1"), (b"vertex 300", b"vertex 99999999999999999999"),
            (b"vertex 300", b"vertex 299"), (b"vertex 300", b"vertex 0x12c"), (b"float x", b"double x"),
            (b"float x", b"list uchar int x"), (b"float y", b"float x"), (b"float z", b"float w"),
            (b"binary_little_endian", b"ascii"), (b"format binary_little_endian 1.0\n", b""),
            (b"element vertex 300\n", b""), (b"float", b"quux"), (b"ply", b"plx"), (b"property", b"element"),
            (b"\n", b"\n\xff\n"),
        ):  # fmt: skip
            assert old in head
            path.write_bytes(head.replace(old, new, 1 if old == b"\n" else -1) + mark + body)
            outcomes.add(f"read, {old!r} is {new!r}", lambda: read_ply(path), exact=True)
            outcomes.add(f"view, {old!r} is {new!r}", lambda: view(run))
        path.write_bytes(head)
        outcomes.add("header without end", lambda: read_ply(path), exact=True)
    outcomes.require_none()


def test_cache_entries(tmp_path: Path) -> None:
    """A damaged entry is as good as none."""
    outcomes, store = Outcomes("cache"), Store(tmp_path / "cache")
    arrays = {"depth": np.linspace(1, 2, 60, dtype=np.float32).reshape(6, 10), "count": np.arange(5)}
    store.save("kind", "key", arrays)
    path = tmp_path / "cache" / "kind" / "key.safetensors"

    def sound(found: dict[str, np.ndarray] | None) -> str | None:
        same = found is None or (found.keys() == arrays.keys() and all((found[k] == arrays[k]).all() for k in arrays))
        return None if same else "other arrays"

    with restored(path) as content:
        for damage in damaged_bytes(content, exact_cuts=False):
            damage.apply(path)
            outcomes.add(damage.name, lambda: store.load("kind", "key"), check=sound)
    outcomes.require_none()


def test_lists_of_pairs(tmp_path: Path) -> None:
    outcomes, path = Outcomes("pairs"), tmp_path / "pairs.txt"
    path.write_text("".join(f"{a} {b}\n" for a, b in pairwise(NAMES)) + "0 2\n")
    with restored(path) as content:
        for damage in damaged_bytes(content, exact_cuts=False):
            damage.apply(path)
            outcomes.add(damage.name, lambda: read_pairs(path, len(NAMES), NAMES), exact=damage.place is not None)
    outcomes.require_none()


def test_photographs(run: Path, tmp_path: Path) -> None:
    outcomes, folder = Outcomes("photographs"), tmp_path / "photos"
    shutil.copytree(run / "photos", folder)
    path = folder / NAMES[0]

    def read() -> int:
        images = load_image_set(folder)
        for k in range(images.num_images):
            load_rgb(images, k)
        return images.num_images

    with restored(path) as content:
        for damage in damaged_bytes(content, exact_cuts=False):
            damage.apply(path)
            outcomes.add(damage.name, read)
    outcomes.require_none()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_weights(tmp_path_factory.mktemp("network") / "tiny", DUST3R))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANCHORSFM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sound_network(loaded: Any) -> str | None:
    import torch

    finite = all(bool(torch.isfinite(value).all()) for value in loaded.state_dict().values())
    return None if finite else "a network of numbers that are not finite"


def loaded(path: Path) -> Any:
    return load_network(resolve_weights(str(path)))


def test_weights(network: Path, own_cache: Path) -> None:
    outcomes = Outcomes("safetensors")
    with restored(network) as content:
        for damage in damaged_bytes(content, exact_cuts=True):
            damage.apply(network)
            outcomes.add(damage.name, lambda: loaded(network), exact=damage.exact, check=sound_network)
    outcomes.require_none()


def test_checkpoints(network: Path, own_cache: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    outcomes, path = Outcomes("pth"), tmp_path / "network.pth"
    torch.save(load_file(network), path)
    shutil.copy(network.parent / "config.json", tmp_path)
    with restored(path) as content:
        for damage in damaged_bytes(content, exact_cuts=False):
            damage.apply(path)
            outcomes.add(damage.name, lambda: loaded(path), exact=damage.place is not None, check=sound_network)
    outcomes.require_none()


def test_descriptions_of_networks(network: Path, own_cache: Path) -> None:
    outcomes, path = Outcomes("config.json"), network.parent / "config.json"
    with restored(path) as content:
        described = json.loads(content)
        wild = [{**described, key: value} for key in described if isinstance(described[key], int)
                for value in (0, -4, 10**9, 10**400, 1.5)]  # fmt: skip
        extra = [Damage(name=f"{k}", content=json.dumps(value).encode()) for k, value in enumerate(wild)]
        for damage in [*extra, *damaged_json(described), *damaged_bytes(content, exact_cuts=False)]:
            damage.apply(path)
            outcomes.add(damage.name, lambda: loaded(network), exact=damage.exact)
    outcomes.require_none()


def test_records_of_the_user(network: Path, own_cache: Path) -> None:
    """What is kept between runs is made again."""
    outcomes = Outcomes("user's cache")
    loaded(network)
    for path in sorted(own_cache.glob("*.json")):
        with restored(path) as content:
            for damage in [
                *damaged_json(json.loads(content)),
                *damaged_bytes(content, exact_cuts=False, cuts=5, flips=5),
            ]:
                damage.apply(path)
                outcomes.add(f"{path.name}, {damage.name}", lambda: loaded(network))
    outcomes.require_none()


# --------------------------------------------------------------------------------------------------- whole programs


@pytest.mark.parametrize(
    ("command", "part", "damage"),
    [
        (("evaluate", "{out}", "--truth", "{out}"), "images.bin", "cut"),
        (("export", "{out}", "--to", "tum", "-o", "{tmp}/export"), "points3D.bin", "cut"),
        (("view", "{out}"), "frames.bin", "cut"),
        (("report", "{out}"), "../../report.json", "pipe"),
    ],
)
def test_commands_end_with_one_line(
    run: Path, tmp_path: Path, command: tuple[str, ...], part: str, damage: str
) -> None:
    path = run / "sparse" / "0" / part
    with restored(path) as content:
        case = (
            next(d for d in not_files() if "pipe" in d.name)
            if damage == "pipe"
            else Damage(name="", content=content[:-9])
        )
        case.apply(path)
        arguments = [word.format(out=run, tmp=tmp_path) for word in command]
        done = subprocess.run(
            [sys.executable, "-m", "anchorsfm.cli", *arguments], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and path.resolve().name in line


def test_rigs_and_ground_control_points(tmp_path: Path) -> None:
    """Read, or refused in one line."""
    cameras = [
        {"image_prefix": "a/", "ref_sensor": True, "camera_model_name": "PINHOLE", "camera_params": [60, 60, 32, 24]},
        {"image_prefix": "b/", "cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [-0.2, 0, 0]},
    ]
    outcomes, path = Outcomes("rig_config.json"), tmp_path / "rig_config.json"
    content = [{"cameras": cameras}]
    path.write_text(json.dumps(content))
    for damage in (*damaged_json(content), *damaged_bytes(path.read_bytes(), exact_cuts=False, cuts=8, flips=8)):
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_rig_config(path), exact=damage.exact)
    outcomes.require_none()
    lines = [f"7.5 46.9{k} 430.5 10 20 {NAMES[0]} P{k}" for k in range(4)]
    table = ["name,x,y,z,image,px,py,check", *(f"P{k},7.5,46.9{k},430,{NAMES[0]},10,20,0" for k in range(4))]
    for name, rows in (("gcp_list.txt", ["WGS84", *lines]), ("gcp.csv", ["WGS84", *table])):
        outcomes, path = Outcomes(name), tmp_path / name
        path.write_text("\n".join(rows))
        for damage in damaged_bytes(path.read_bytes(), exact_cuts=False, cuts=8, flips=8):
            damage.apply(path)
            outcomes.add(damage.name, lambda path=path: read_gcp(path), exact=damage.exact)
        outcomes.require_none()


def test_records_of_panoramas(tmp_path: Path) -> None:
    """A record that is damaged is none: views are cut anew."""
    one = PanoramaViews(
        panorama="P.jpg", digest="d", views="level", side=64, names=tuple(f"64px/{k}/P.jpg" for k in range(6))
    )
    path, outcomes = tmp_path / "panoramas.json", Outcomes("panoramas.json")
    path.write_text(views_record((one,)))
    assert read_views(tmp_path) == (one,)
    for damage in (*damaged_json(json.loads(path.read_text())), *damaged_bytes(path.read_bytes(), exact_cuts=False)):
        damage.apply(path)
        outcomes.add(damage.name, lambda: read_views(tmp_path))
    outcomes.require_none()
