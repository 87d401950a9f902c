"""The scale of a model on disk, set by two clicks in the viewer, and who may do that."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.export.run import export
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.picks import pick
from anchorsfm.transform.run import transform
from anchorsfm.viewer.guard import ChangesName, may_change
from anchorsfm.viewer.measure import marks, measure
from anchorsfm.viewer.rescale import can_be_rescaled, set_scale
from anchorsfm.viewer.server import Viewer, find_free_port, open_viewer
from finished_run import write_finished_run
from snapshot import snapshot
from viewer_scene import coloured_model, write_output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_finished_run(folder / "out")
    return folder / "out"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


def model_of(out: Path) -> StoredModel:
    return read_models(out)[0]


def two_points(viewed: StoredModel) -> tuple[int, int]:
    """Far from each other."""
    first = int(viewed.model.tracks.obs_point[viewed.observations(0)[3]])
    away = np.linalg.norm(viewed.model.points - viewed.model.points[first], axis=1)
    return first, int(away.argmax())


def test_the_folder_is_what_the_command_would_have_made(out: Path) -> None:
    export(out, ["tum"])
    viewed, pair = model_of(out), two_points(model_of(out))
    by_command = shutil.copytree(out, out.parent / "by command")
    done = set_scale(viewed, *pair, 2.5)
    found = measure(done.viewed, *pair)
    assert found.length == pytest.approx(2.5, rel=1e-4) and found.unit == "m" and done.viewed.is_metric
    (entry,) = json.loads((out / "transform.json").read_text())["models"]
    (asked,) = [step["asked"] for step in entry["steps"]]
    assert list(asked) == ["distance"] and asked["distance"][-1] == "2.5" and len(asked["distance"]) == 5
    assert any("scale from 1 measured distance" in line for line in done.said)
    command = measure(viewed, *pair).command.split()
    transform(by_command, TransformConfig(distance=(*command[command.index("--distance") + 1 : -1], "2.5")))
    left, right = (snapshot(folder, without=(".anchorsfm",)) for folder in (out, by_command))
    assert left == right
    assert np.loadtxt(out / "export/tum/poses.txt")[0, 1:4] == pytest.approx(
        camera_centres(done.viewed.model.cam_from_world)[0], abs=1e-5
    )
    assert not OwnedFolder(out).changed([""])
    assert measure(set_scale(done.viewed, *pair, 5.0).viewed, *pair).length == pytest.approx(5.0, rel=1e-4)


def test_a_mark_means_the_point_and_no_other(out: Path) -> None:
    """Also points beside which others are seen nearer than they are themselves."""
    viewed, rng = model_of(out), np.random.default_rng(0)
    tracks = viewed.model.tracks
    noisy = replace(tracks, obs_xy=tracks.obs_xy + rng.normal(0, 1.0, tracks.obs_xy.shape))
    crowded = StoredModel(folder=viewed.folder, model=replace(viewed.model, tracks=noisy), names=viewed.names)
    for point in range(0, len(viewed.model.points), 5):
        name, xy = marks(crowded, point, point)[:2]
        place = pick(crowded, name, np.array([float(value) for value in xy.split(",")]))
        assert np.linalg.norm(place.xyz - viewed.model.points[point]) < 2e-3


def test_what_cannot_be_set_changes_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewed, pair = model_of(out), two_points(model_of(out))
    before = snapshot(out)
    for metres in (0.0, float("nan"), -1.0):
        with pytest.raises(InputError, match="give the distance in metres first"):
            set_scale(viewed, *pair, metres)
    with pytest.raises(InputError):
        set_scale(viewed, pair[0], pair[0], 1.0)
    assert snapshot(out) == before
    (out / "dense/0.ply").write_bytes(b"mine")
    before = snapshot(out)
    with pytest.raises(StorageError, match=r"0\.ply was changed after"):
        set_scale(viewed, *pair, 2.0)
    assert snapshot(out) == before


@pytest.mark.parametrize(
    "change",
    [
        TransformConfig(scale=3.0),
        TransformConfig(up="plane"),
        TransformConfig(crop_box=(-9.0, -9.0, -0.6, 9.0, 9.0, 9.0)),
    ],
)
def test_a_model_that_has_changed_since_it_was_read_is_left_alone(out: Path, change: TransformConfig) -> None:
    """Also where the distance is what it was, but the points are drawn elsewhere or have other numbers."""
    viewed, pair = model_of(out), two_points(model_of(out))
    transform(out, change)
    before = snapshot(out)
    with pytest.raises(InputError, match="another one than when the viewer has read it"):
        set_scale(viewed, *pair, 2.0)
    assert snapshot(out) == before


def test_only_results_in_folders_of_ours_that_can_be_written_are_offered(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_be_rescaled(model_of(out))
    (model,) = read_models(out / "sparse" / "0")
    assert can_be_rescaled(model)
    shutil.copytree(out / "sparse", tmp_path / "others" / "sparse")
    assert not can_be_rescaled(read_models(tmp_path / "others")[0])
    assert not can_be_rescaled(read_models(write_output(tmp_path / "by hand", [coloured_model()]))[0])
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda *_: False)
        assert not can_be_rescaled(model_of(out))
    shutil.copytree(out / "sparse" / "0", out / "alignment" / "0")
    assert not can_be_rescaled(read_models(out / "alignment" / "0")[0])


@pytest.mark.parametrize(
    ("host", "changes", "allowed"),
    [
        ("127.0.0.1", "local", True),
        ("::1", "local", True),
        ("localhost", "local", True),
        ("0.0.0.0", "local", False),
        ("::", "local", False),
        ("192.168.0.7", "local", False),
        ("machine.example", "local", False),
        ("localhost.example", "local", False),
        ("0.0.0.0", "everyone", True),
        ("127.0.0.1", "nobody", False),
    ],
)
def test_who_may_change_files(host: str, changes: ChangesName, allowed: bool) -> None:
    assert may_change(host, changes) == allowed


@contextmanager
def viewing(out: Path, **options) -> Iterator[Viewer]:
    pytest.importorskip("viser")
    viewer = open_viewer(out, port=find_free_port("127.0.0.1", 18280), **options)
    viewer.panel.stage.stop()
    try:
        yield viewer
    finally:
        viewer.stop()


def click_two(viewer: Viewer) -> tuple[int, int]:
    """Two points, as rows of the model, through the scene."""
    measure, shown = viewer.panel.measure, viewer.panel.stage.models[0]
    measure.on.value = True
    eye = shown.frusta.shown_from_cam[0, :, 3]
    seen = shown.viewed.model.tracks.obs_point[shown.viewed.observations(0)]
    for point in (seen[0], seen[-1]):
        towards = shown.frame.points(shown.viewed.model.points[point]) - eye
        measure.click(tuple(eye.tolist()), tuple(towards.tolist()))
    return measure._chosen[0][1], measure._chosen[1][1]


def test_two_clicks_and_a_number_set_the_scale(out: Path) -> None:
    with viewing(out) as viewer:
        panel, shown = viewer.panel, viewer.panel.stage.models[0]
        control = panel.measure
        assert control.metres is not None and not control.metres.visible and not control.set.visible
        panel.images.pick(0, 2)
        assert "of the scene size |" in panel.images.facts.content
        points = shown.nodes["points"].points.copy()
        pair = click_two(viewer)
        assert control.metres.visible and control.set.visible
        assert "METRES" not in control.text.content and "units of the model" in control.text.content
        control.rescale()
        assert "The scale was not set: give the distance in metres first" in control.text.content
        assert not (out / "transform.json").exists()

        control.metres.value = 4.0
        for callback in list(control.set._impl.update_cb):
            callback(None)
        assert control.text.content.startswith("**4 m**")
        assert "The scale is set." in control.text.content and "--reset" in control.text.content
        assert (out / "transform.json").exists() and model_of(out).is_metric
        assert measure(shown.viewed, *pair).length == pytest.approx(4.0, rel=1e-4)
        assert shown.viewed is panel._models[0] and panel.images._models[0] is shown.viewed
        assert re.search(r"position ± \| [^|]* mm\)", panel.images.facts.content) and panel.images.panel.visible
        np.testing.assert_allclose(shown.nodes["points"].points, points)
        np.testing.assert_allclose(
            shown.frame.points(model_of(out).model.points[pair[0]]), shown.nodes["measured"].points[0], atol=1e-5
        )
        control.metres.value = 8.0
        control.rescale()  # the same points again
        assert control.text.content.startswith("**8") and len(shown.nodes["measured"].points) == 2
        assert click_two(viewer) == pair
        control.on.value = False
        assert not control.metres.visible and not control.set.visible
        before = snapshot(out)
        control.rescale()
        assert snapshot(out) == before


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"changes": "nobody"}])
def test_where_nobody_may_change_files_the_command_is_shown(out: Path, options: dict) -> None:
    before = snapshot(out)
    with viewing(out, **options) as viewer:
        control = viewer.panel.measure
        click_two(viewer)
        assert control.metres is None and control.set is None
        assert "anchorsfm transform" in control.text.content and "METRES" in control.text.content
        control.rescale()
    assert snapshot(out) == before


def test_the_owner_can_let_everyone(out: Path) -> None:
    with viewing(out, host="0.0.0.0", changes="everyone") as viewer:
        click_two(viewer)
        assert viewer.panel.measure.set.visible


def test_a_folder_that_becomes_read_only_gets_the_command(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with viewing(out) as viewer:
        monkeypatch.setattr("os.access", lambda *_: False)
        click_two(viewer)
        assert not viewer.panel.measure.set.visible and "METRES" in viewer.panel.measure.text.content
