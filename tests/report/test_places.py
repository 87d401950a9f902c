"""Where models and their cameras are on the Earth, as files."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.geodesy import geodetic_from_enu
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.georeference import Georeferenced
from anchorsfm.report.places import describe_places, view_lines
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.modelling import Finished, make_places
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.synthetic import SceneConfig, image_set, make_scene
from report_scene import ring_model

BERN = (46.95, 7.44, 500.0)
NAMES = [f"{k}.jpg" for k in range(5)] + ["d & e.jpg"]
GEO = GeoPositions(
    lat_lon_alt=np.zeros((6, 3)), enu_m=np.zeros((6, 3)), sigma_m=np.ones((6, 3)), origin=BERN, is_ellipsoidal=True
)


def of_images(*images: int) -> Reconstruction:
    """A model in metres of some of the photographs."""
    model = ring_model(len(images), 30)
    index = np.array(images)
    tracks = replace(model.tracks, obs_image=index[model.tracks.obs_image])
    return replace(model, image_index=index, tracks=tracks)


def judged(mode: str) -> Georeferenced:
    """The first record is missing, the second contradicts the model."""
    residual = np.array([[np.nan] * 3, [30.0, 0, 0], [0.1, 0.2, -0.3]])
    return Georeferenced(mode=mode, residual_m=residual, agrees=np.array([False, False, True]), sigma_m=np.ones((3, 3)))


MODELS = (of_images(0, 1, 2), of_images(3, 4, 5))


def test_only_models_in_the_frame_have_places_whichever_they_are() -> None:
    places = describe_places(MODELS, [judged("check"), judged("align")], GEO, NAMES, 4326)
    (entry,) = places.document["models"]
    assert (entry["number"], entry["mode"]) == (1, "align") and places.document["epsg"] == 4326
    assert places.document["origin"]["altitude_above"] == "ellipsoid"
    centres = camera_centres(MODELS[1].cam_from_world)
    expected = geodetic_from_enu(centres, BERN)
    assert [image["name"] for image in entry["images"]] == NAMES[3:]
    for image, centre, place in zip(entry["images"], centres, expected, strict=True):
        found = [image["latitude_deg"], image["longitude_deg"], image["altitude_m"]]
        assert found == pytest.approx(place, abs=1e-4) and found[:2] == pytest.approx(place[:2], abs=1e-8)
        assert image["enu_m"] == pytest.approx(centre, abs=1e-4)
        assert image["epsg_xyz"][:2] == pytest.approx(place[[1, 0]], abs=1e-8), "degrees of a few millimetres"
    assert [image["outlier"] for image in entry["images"]] == [False, True, False]
    assert [image["residual_m"] for image in entry["images"]] == [None, [30.0, 0.0, 0.0], [0.1, 0.2, -0.3]]
    assert {point["properties"]["model"] for point in places.geojson["features"]} == {1}
    both = describe_places(MODELS, [judged("prior"), judged("align")], replace(GEO, is_ellipsoidal=False), NAMES, None)
    assert [entry["number"] for entry in both.document["models"]] == [0, 1]
    assert both.document["origin"]["altitude_above"] == "sea level"


def test_globes_get_longitude_first_and_any_name() -> None:
    places = describe_places(MODELS[1:], [judged("align")], GEO, NAMES, None)
    marks = ElementTree.fromstring(places.kml).findall(".//{*}Placemark")
    assert [mark.findtext("{*}name") for mark in marks] == NAMES[3:]
    longitude, latitude, altitude = map(float, marks[0].findtext(".//{*}coordinates").split(","))
    assert (longitude, latitude) == pytest.approx((7.44, 46.95), abs=1e-3) and altitude == pytest.approx(500, abs=10)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((None, None), None),
        ((judged("check"), None), None),
        ((judged("check"), judged("prior")), [1]),
        ((None, judged("align")), [1]),
    ],
)
def test_files_of_places_are_made_if_any_model_has_some(found: tuple, expected: list[int] | None) -> None:
    images = replace(image_set(make_scene(SceneConfig(num_images=6, size_wh=(320, 240)))), geo=GEO)
    places = make_places(Finished(models=MODELS, georeferenced=found), images, PipelineConfig())
    numbers = None if places is None else [entry["number"] for entry in places.document["models"]]
    assert numbers == expected


def test_recorded_directions_are_compared_in_a_frame_with_north() -> None:
    model = MODELS[0]
    turn = Similarity.of(Rotation.from_euler("xz", [-90, 40], degrees=True).as_matrix(), np.ones(3), 2.0)
    view_deg = np.full((6, 2), np.nan)
    for view in range(2):
        forward = model.cam_from_world[view, 2, :3] @ turn.rotation.T
        pitch = np.degrees(np.arcsin(forward[2]))
        view_deg[view] = np.degrees(np.arctan2(forward[0], forward[1])) + 4, pitch
    found = replace(judged("align"), enu_from_model=turn)
    (line,) = view_lines(model, found, view_deg)
    assert line.text == (
        "cameras of 2 photographs recorded where they looked: 0.0 degrees in pitch and 4.0 degrees in heading from the "
        "model (median)"
    )
    assert not line.is_warning
    (line,) = view_lines(model, found, view_deg + np.array([0, 20]))
    assert line.is_warning and line.text.endswith("one of them is wrong")
    assert not list(view_lines(model, judged("check"), view_deg))
    assert not list(view_lines(model, found, np.full((6, 2), np.nan)))
