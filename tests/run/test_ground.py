"""Ground control points of a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm import pipeline
from anchorsfm.geometry.geodesy import geodetic_from_enu
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.config import GcpConfig
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.ground import check_gcp, with_ground_points
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from anchorsfm.synthetic.scenes import cast_pixels, project, rays
from said import Said

ORIGIN = (46.9, 7.5, 430.0)
PLACES = np.array([[0.0, 0, 0], [10, 0, 1], [0, 12, 2], [8, 9, -1]])
IMAGES = ImageSet(
    root=Path("photos"),
    names=("a/1.jpg", "a/2.jpg", "b/2.jpg"),
    size_wh=np.full((3, 2), [640, 480]),
    camera_index=np.zeros(3, np.int64),
    focal_prior_px=np.full(3, np.nan),
    digests=("1", "2", "3"),
)


def gcp_list(path: Path, *, system: str = "WGS84", lines: list[str] | None = None) -> GcpConfig:
    geodetic = geodetic_from_enu(PLACES, ORIGIN)
    if lines is None:
        lines = [
            f"{lon:.12f} {lat:.12f} {alt:.6f} {10 + k} {20 + k} {image} P{k}"
            for k, (lat, lon, alt) in enumerate(geodetic)
            for image in ("1.jpg", "a/2.jpg")
        ]
    path.write_text("\n".join([system, *lines]))
    return GcpConfig(file=path)


def found(config: GcpConfig) -> tuple[ImageSet, GroundPoints]:
    images, ground = with_ground_points(IMAGES, config, SILENT)
    assert ground is not None
    return images, ground


def test_points_get_places_in_a_frame_about_them(tmp_path: Path) -> None:
    images, ground = found(gcp_list(tmp_path / "gcp_list.txt"))
    assert ground.names == ("P0", "P1", "P2", "P3") and images.geo is not None
    assert np.allclose(np.diff(ground.xyz_m, axis=0), np.diff(PLACES, axis=0), atol=1e-3)
    assert ground.image.tolist() == [0, 1] * 4 and ground.point.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not np.isfinite(images.geo.enu_m).any() and images.geo.origin[0] == pytest.approx(46.9, abs=1e-3)


def test_other_reference_systems_give_the_same(tmp_path: Path) -> None:
    pyproj = pytest.importorskip("pyproj")
    lat, lon, alt = geodetic_from_enu(PLACES, ORIGIN).T
    east, north = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(lon, lat)
    lines = [
        f"{x} {y} {z} 10 20 {image}" for x, y, z in zip(east, north, alt, strict=True) for image in ("1.jpg", "a/2.jpg")
    ]
    for number, system in enumerate(("EPSG:32632", "WGS84 UTM 32N", "+proj=utm +zone=32 +datum=WGS84 +units=m")):
        config = gcp_list(tmp_path / f"{number}.txt", system=system, lines=lines)
        check_gcp(config)
        _, ground = found(config)
        assert np.allclose(np.diff(ground.xyz_m, axis=0), np.diff(PLACES, axis=0), atol=1e-3)
        assert ground.names[0] == "point 1"


def test_points_in_a_frame_of_their_own_and_check_points(tmp_path: Path) -> None:
    rows = [
        f"P{k},{x},{y},{z},{i},5,6,{int(k == 3)}" for k, (x, y, z) in enumerate(PLACES) for i in ("1.jpg", "a/2.jpg")
    ]
    (tmp_path / "gcp.csv").write_text("\n".join(["name,x,y,z,image,px,py,check", *rows]))
    images, ground = found(GcpConfig(file=tmp_path / "gcp.csv"))
    assert np.allclose(ground.xyz_m, PLACES) and images.geo is None and ground.is_check.tolist() == [False] * 3 + [True]
    with pytest.raises(InputError, match="2 control points are marked in two photographs and more, 3 are needed"):
        found(GcpConfig(file=tmp_path / "gcp.csv", check=("P0",)))


GOOD = [f"7.5 46.9{k} 430 10 20 {image} P{k}" for k in range(3) for image in ("1.jpg", "a/2.jpg")]


@pytest.mark.parametrize(
    ("lines", "check", "problem"),
    [
        (["7.5 46.9 430 1 1 x.jpg"], (), r"line 2: there is no photograph x.jpg \(there is a/1.jpg\)"),
        (["7.5 46.9 430 1 1 2.jpg"], (), "line 2: several photographs are called 2.jpg"),
        (["7.5 46.9 430 641 1 1.jpg"], (), "line 2: pixel 641 1 lies outside 1.jpg, which is 640x480"),
        (["7.5 146.9 430 1 1 1.jpg"], (), r"line 2: 7.5 146.9 is no place in WGS84"),
        (["200 46.9 430 1 1 1.jpg"], (), r"line 2: 200 46.9 is no place in WGS84"),
        (["7.5 46.9 430 1 1 1.jpg P", "7.5 46.9 430 2 1 1.jpg"], (), "line 3: P is marked in 1.jpg already in line 2"),
        (
            ["7.5 46.9 430 1 1 1.jpg P", "7.6 46.9 430 2 1 1.jpg P"],
            (),
            "line 3: P has other coordinates than in line 2",
        ),
        (GOOD[:4], (), "2 control points are marked in two photographs and more"),
        (GOOD, ("Q",), "has no point Q to check"),
    ],
)
def test_files_that_do_not_fit_the_photographs(lines: list[str], check: tuple, problem: str, tmp_path: Path) -> None:
    config = gcp_list(tmp_path / "gcp_list.txt", lines=lines)
    with pytest.raises(InputError, match=problem):
        found(GcpConfig(file=config.file, check=check))


@pytest.mark.parametrize("system", ["7.5 46.9 430 1 1 1.jpg", "EPSG:1", "mars", "EPSG:5703"])
def test_systems_that_are_none(system: str, tmp_path: Path) -> None:
    pytest.importorskip("pyproj")
    with pytest.raises(
        InputError, match=r"gcp_list.txt, line 1: .* (is no coordinate reference system|has no horizontal)"
    ):
        check_gcp(gcp_list(tmp_path / "gcp_list.txt", system=system))


def test_a_run_is_in_the_frame_of_the_points(tmp_path: Path) -> None:
    scene = make_scene(SceneConfig(num_images=5, size_wh=(320, 240), arc_deg=40, seed=4))
    write_photographs(scene, tmp_path)
    rng, rows = np.random.default_rng(0), []
    xy = rng.uniform([60, 60], [260, 180], (40, 2))
    origin, direction = rays(scene, 2, xy)
    xyz = origin + cast_pixels(scene, 2, xy).distance[:, None] * direction
    for k, place in enumerate(xyz):
        marks = []
        for image in range(5):
            at, depth = project(scene, image, place[None])
            if not (depth[0] > 0 and (at[0] > 5).all() and (at[0] < [315, 235]).all()):
                continue
            if abs(cast_pixels(scene, image, at).distance[0] / depth[0] - 1) < 0.005:
                marks.append(f"P{k},{','.join(map(str, place))},{scene.names[image]},{at[0, 0]:.2f},{at[0, 1]:.2f}")
        rows += marks if len(marks) >= 3 else []
    names = list(dict.fromkeys(row.partition(",")[0] for row in rows))
    assert len(names) >= 9
    names = names[:9]
    kept = [row for row in rows if row.partition(",")[0] in names]
    (tmp_path / "gcp.csv").write_text("\n".join(["name,x,y,z,image,px,py", *kept]))
    gcp = GcpConfig(file=tmp_path / "gcp.csv", check=tuple(names[::3]))
    config = PipelineConfig(mapper="tracks", dense=False, keep_descriptors=False, gcp=gcp)
    result = pipeline.reconstruct(tmp_path / "images", tmp_path / "out", config)
    (model,) = result.models
    assert (
        np.linalg.norm(camera_centres(model.cam_from_world) - camera_centres(scene.cam_from_world), axis=1).max() < 0.03
    )
    (entry,) = json.loads((tmp_path / "out" / "ground_control.json").read_text())["models"]
    roles = [point["role"] for point in entry["points"]]
    assert entry["problem"] is None and roles.count("check") == 3 and roles.count("control") == 6
    off = [np.linalg.norm(point["residual_m"]) for point in entry["points"] if point["role"] == "check"]
    assert max(off) < 0.03

    picture = np.asarray(Image.open(tmp_path / "images" / scene.names[0]))
    Image.fromarray(picture[::-1]).save(tmp_path / "new.png")
    shutil.copytree(tmp_path / "out", tmp_path / "all")
    said = Said()
    pipeline.extend(tmp_path / "out", [tmp_path / "new.png"], said)
    assert [line for line in said.warnings if line.startswith("the models stay where ground control points brought")]
    assert not (tmp_path / "out" / "ground_control.json").exists()
    pipeline.extend(tmp_path / "all", [tmp_path / "new.png"], adjust_all=True)
    (again,) = json.loads((tmp_path / "all" / "ground_control.json").read_text())["models"]
    assert again["problem"] is None and [point["role"] for point in again["points"]] == roles
