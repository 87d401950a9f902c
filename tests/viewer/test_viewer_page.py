"""The viewer as a user meets it: the command, the page in a browser, what its controls do."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from anchorsfm.colmap.write import write_models
from anchorsfm.viewer.browser import BACKGROUND
from anchorsfm.viewer.server import Viewer, find_free_port, open_viewer
from browser import Page, require_chromium
from unix import unix_only
from viewer_scene import coloured_model, names_of, without_points, write_output

VIEW = [sys.executable, "-m", "anchorsfm", "view"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of the same photographs, the second without points."""
    model = coloured_model()
    return write_output(tmp_path_factory.mktemp("viewer") / "out", [model, without_points(model)])


@pytest.fixture(scope="module")
def viewer(output: Path) -> Iterator[Viewer]:
    pytest.importorskip("viser")
    opened = open_viewer(output, port=find_free_port("127.0.0.1", 18080))
    wait_until(lambda: sum(len(shown.thumbnails) for shown in opened.panel.stage.models) == 12)
    yield opened
    opened.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still not true"
        time.sleep(0.05)


@contextmanager
def running(*arguments: object, **options) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """The command with what it has printed up to its address."""
    process = subprocess.Popen(
        [*VIEW, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **options,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if "first run there" in line:
                break
        yield process, lines
    finally:
        process.kill()
        process.wait()


def address(lines: list[str]) -> str:
    return re.search(r"open (http://\S+) in a browser", "\n".join(lines)).group(1)


# -------------------------------------------------------------------------------------------------------- the command


@unix_only
def test_the_command_serves_a_page_and_ends_cleanly(output: Path) -> None:
    pytest.importorskip("viser")
    require_chromium()
    with running(output, "--port", find_free_port("127.0.0.1", 18180)) as (process, lines):
        assert len(lines) == 3 and lines[0] == f"reading {output}", lines
        url = address(lines)
        assert re.search(r"ssh -L (\d+):localhost:\1 ", lines[2]).group(1) == str(urlsplit(url).port)
        with Page(url, size_wh=(900, 600)) as page:
            page.wait_for("document.querySelector('canvas') !== null")
            page.wait_for("document.body.innerText.includes('points drawn')")
            page.wait_for("!!document.querySelector('canvas').getContext('webgl2')")
            elsewhere = page.evaluate(
                "performance.getEntriesByType('resource').map(e => e.name)"
                f".filter(n => !n.startsWith('{url}') && !n.startsWith('data:') && !n.startsWith('blob:'))"
            )
            assert elsewhere == []
            assert page.errors == []
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[0]
        assert process.returncode == 0
        assert rest.strip() == "stopped"


@unix_only
def test_a_busy_port_gives_a_line_and_the_next_one(output: Path) -> None:
    pytest.importorskip("viser")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        port = busy.getsockname()[1]
        with running(output, "--port", port) as (process, lines):
            assert lines[1].startswith(f"note: port {port} is in use: taking ")
            assert urlsplit(address(lines)).port != port
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143


def test_faults_are_one_clear_line(output: Path, tmp_path: Path) -> None:
    (tmp_path / "viser").mkdir()
    (tmp_path / "viser" / "__init__.py").write_text("raise ImportError('not there')")
    without = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    (tmp_path / "empty").mkdir()
    for arguments, words, environment in (
        ((output,), "pip install 'anchorsfm[viewer]'", without),
        ((tmp_path / "empty",), "no COLMAP model", None),
        ((tmp_path / "absent",), "no such folder", None),
    ):
        result = subprocess.run(
            [*VIEW, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=environment
        )
        assert result.returncode == 2 and len(result.stdout.splitlines()) <= 1
        (line,) = result.stderr.strip().splitlines()
        assert words in line


# ----------------------------------------------------------------------------------------------------------- controls


def test_controls_change_what_is_drawn(viewer: Viewer) -> None:
    panel = viewer.panel
    stage = panel.stage
    everything = len(stage.models[0].nodes["points"].points)
    assert everything == len(stage.models[0].viewed.model.points)
    assert f"{everything} of {everything} points" in panel.count.content
    panel.min_length.value = 6
    fewer = len(stage.models[0].nodes["points"].points)
    assert 0 < fewer < everything and f"{fewer} of {everything} points" in panel.count.content
    panel.max_error.value = 0.5
    assert 0 < len(stage.models[0].nodes["points"].points) < fewer
    panel.min_length.value, panel.max_error.value = 2, panel.max_error.max
    assert len(stage.models[0].nodes["points"].points) == everything
    panel.point_colour.value = "track length"
    assert panel.point_legend.visible and "images that see a point" in panel.point_legend.content
    panel.point_colour.value = "photographs"
    assert not panel.point_legend.visible
    panel.camera_colour.value = "position uncertainty"
    assert "uncertainty" in panel.camera_legend.content
    panel.camera_colour.value = "plain"
    usual = stage.models[0].nodes["points"].point_size
    panel.point_size.value = 2.0
    assert stage.models[0].nodes["points"].point_size == pytest.approx(2 * usual)
    panel.point_size.value = 1.0
    panel.axes.value = True
    assert viewer.server.scene.world_axes.visible
    panel.axes.value = False
    panel.points.value = False
    assert not stage.models[0].nodes["points"].visible
    panel.points.value = True


def test_ellipsoids_show_how_far_positions_may_be_off(viewer: Viewer) -> None:
    panel, shown = viewer.panel, viewer.panel.stage.models[0]
    assert panel.ellipsoids.visible and "ellipsoids" not in shown.nodes
    panel.ellipsoids.value = True
    node, said = shown.nodes["ellipsoids"], panel.count.content
    (factor,) = re.findall(r"spheres: (\S+) times one standard deviation", said)
    np.testing.assert_allclose(node.batched_positions, shown.frusta.shown_from_cam[:, :, 3], rtol=1e-5)
    np.testing.assert_allclose(node.batched_scales, float(factor) * shown.frame.scale * 0.003, rtol=1e-5)
    assert node.visible
    panel.ellipsoids.value = False
    assert not node.visible and "spheres" not in panel.count.content


def test_the_dense_cloud_is_shown_from_the_start(viewer: Viewer) -> None:
    panel, first = viewer.panel, viewer.panel.stage.models[0]
    assert panel.dense.value
    assert len(first.nodes["dense"].points) == len(first.viewed.model.points) and first.nodes["dense"].visible
    panel.dense.value = False
    assert not first.nodes["dense"].visible


def test_pictures_stand_where_the_cameras_are(viewer: Viewer) -> None:
    first = viewer.panel.stage.models[0]
    small = first.nodes["faces"].batched_scales
    assert sorted(first.thumbnails) == list(range(6)) and small.max() < 1e-5
    viewer.panel.pictures.value = False
    assert not first.thumbnails[0].visible and first.nodes["faces"].batched_scales.max() > 0.01
    viewer.panel.pictures.value = True
    viewer.panel.camera_size.value = 2.0
    pose = first.frusta.shown_from_cam[3]
    away = (first.thumbnails[3].position - pose[:, 3]) @ pose[:, 2]
    assert away == pytest.approx(2 * first.frusta.depth)
    assert first.thumbnails[3].render_width / away == pytest.approx(1600 / 1500)
    viewer.panel.camera_size.value = 1.0


def test_one_model_or_all_side_by_side(viewer: Viewer) -> None:
    panel, stage = viewer.panel, viewer.panel.stage
    assert panel.model.visible and len(panel.model.options) == 3
    frames = [shown.nodes["frame"] for shown in stage.models]
    assert [frame.visible for frame in frames] == [True, False]
    panel.model.value = panel.model.options[1]
    assert [frame.visible for frame in frames] == [False, True] and "0 points" in panel.summary.content
    panel.model.value = panel.model.options[2]
    assert all(frame.visible for frame in frames)
    assert frames[1].position[0] - frames[0].position[0] > 5
    assert len(panel.images.choice.options) == 1 + 12
    panel.model.value = panel.model.options[0]
    assert len(panel.images.choice.options) == 1 + 6


def test_choosing_an_image_and_a_neighbour(viewer: Viewer) -> None:
    images, first = viewer.panel.images, viewer.panel.stage.models[0]
    click = first.nodes["faces"]._impl.click_cb[0].callback
    click(SimpleNamespace(instance_index=2))
    assert images.choice.value == "0: photo 2.jpg" and images.panel.visible
    assert "photo 2.jpg" in images.title.content and "reprojection error" in images.facts.content
    assert images.picture.visible and images.picture.image.shape == (300, 400, 3)
    plain = images.picture.image
    images.magnify.value = 60
    assert (images.picture.image != plain).any()
    assert "marked" in first.nodes and len(first.nodes["links"].points) == 5 and "rays" not in first.nodes
    images.neighbour.value = images.neighbour.options[1]
    assert images.matches.visible and images.matches.image.shape[1] > 800
    assert "shared points" in images.pair.content and "rays" in first.nodes
    images.show_seen.value = True
    assert len(first.nodes["seen"].points) == images.selection.facts.num_points
    images.close()
    assert not images.panel.visible and not {"marked", "links", "rays", "seen"} & set(first.nodes)
    images.show_seen.value = False


def test_two_clicks_measure_a_distance(viewer: Viewer) -> None:
    measure, shown = viewer.panel.measure, viewer.panel.stage.models[0]
    model = shown.viewed.model
    eye = shown.frusta.shown_from_cam[0, :, 3] + np.array(shown.nodes["frame"].position)
    offset = np.array(shown.nodes["frame"].position)

    def click(point: int) -> None:
        towards = shown.frame.points(model.points[point]) + offset - eye
        measure.click(tuple(eye.tolist()), tuple(towards.tolist()))

    points = model.tracks.obs_point[shown.viewed.observations(0)]
    click(int(points[0]))
    assert "measured" not in shown.nodes and not measure.text.content  # it is off
    measure.on.value = True
    measure.click(tuple(eye.tolist()), (float("nan"), 0.0, 0.0))
    assert "come closer" in measure.text.content
    click(int(points[0]))
    assert "second point" in measure.text.content
    click(int(points[-1]))
    assert "±" in measure.text.content and "anchorsfm transform" in measure.text.content
    assert len(shown.nodes["measured"].points) == 2 and "measured line" in shown.nodes
    click(int(points[0]))  # the next pair begins
    assert len(shown.nodes["measured"].points) == 1 and "measured line" not in shown.nodes
    measure.on.value = False
    assert "measured" not in shown.nodes and not measure.text.content


def test_an_image_without_photograph_or_points_says_so(tmp_path: Path) -> None:
    pytest.importorskip("viser")
    model = without_points(coloured_model())
    write_models(tmp_path / "model", [model], names_of(model))
    opened = open_viewer(tmp_path / "model", port=find_free_port("127.0.0.1", 18280))
    try:
        assert any("--images" in note for note in opened.notes)
        images = opened.panel.images
        images.pick(0, 1)
        assert not images.picture.visible and "--images" in images.title.content
        assert images.neighbour.options == (images.neighbour.options[0],)
        assert len(opened.panel.stage.models[0].nodes["outlines"].points) == 60
    finally:
        opened.stop()


def test_a_damaged_dense_cloud_leaves_the_rest_usable(tmp_path: Path) -> None:
    pytest.importorskip("viser")
    output = write_output(tmp_path / "out", [coloured_model()])
    (output / "dense" / "0.ply").write_bytes(b"ply")
    opened = open_viewer(output, port=find_free_port("127.0.0.1", 18380))
    try:
        opened.panel.dense.value = True
        assert "dense" not in opened.panel.stage.models[0].nodes
        opened.panel.min_length.value = 4
        assert "points drawn" in opened.panel.count.content
    finally:
        opened.stop()


# ------------------------------------------------------------------------------------------------------- in a browser


def shown_pixels(page: Page) -> np.ndarray:
    """The scene between the panels, once two pictures in a row are the same."""
    previous = page.screenshot()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.4)
        current = page.screenshot()
        if (current == previous).all():
            return current
        previous = current
    return previous


def click_button(page: Page, label: str) -> None:
    page.evaluate(f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === '{label}').click()")


def downloaded(path: Path) -> np.ndarray:
    """A picture, once the browser has written all of it."""
    end = time.monotonic() + 30
    while True:
        try:
            return np.array(Image.open(path))
        except OSError:  # not there, or not all of it
            assert time.monotonic() < end, f"no whole picture in {path}"
            time.sleep(0.05)


def pixel_of(client, place: np.ndarray, canvas: dict[str, float]) -> tuple[float, float]:
    """Where a point of the scene is seen in the window."""
    from scipy.spatial.transform import Rotation

    camera = client.camera
    rotation = Rotation.from_quat(np.roll(camera.wxyz, -1)).as_matrix()
    x, y, z = (place - camera.position) @ rotation
    focal = canvas["height"] / 2 / np.tan(camera.fov / 2)
    return canvas["x"] + canvas["width"] / 2 + focal * x / z, canvas["y"] + canvas["height"] / 2 + focal * y / z


def test_the_page_shows_points_and_a_click_on_a_camera_chooses_it(viewer: Viewer, tmp_path: Path) -> None:
    require_chromium()
    panel, first = viewer.panel, viewer.panel.stage.models[0]
    with Page("about:blank", size_wh=(1100, 700)) as page:
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.call("Page.navigate", url=viewer.url)
        page.wait_for("document.body?.innerText.includes('points drawn')")
        wait_until(lambda: len(viewer.server.get_clients()) == 1)
        full = shown_pixels(page)
        panel.points.value = False
        no_points = shown_pixels(page)
        assert ((full != no_points).any(axis=2)).sum() > 300
        panel.cameras.value = False
        empty = shown_pixels(page)
        assert ((no_points != empty).any(axis=2)).sum() > 1000
        assert tuple(empty[400, 400]) == BACKGROUND
        panel.points.value = panel.cameras.value = True
        shown_pixels(page)

        (client,) = viewer.server.get_clients().values()
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        click_button(page, "Screenshot")
        saved = downloaded(tmp_path / "anchorsfm.png")
        assert saved.shape == (client.camera.image_height, client.camera.image_width, 3)
        assert (saved != BACKGROUND).any(axis=2).sum() > 1000 and (saved == BACKGROUND).all(axis=2).mean() > 0.3

        canvas = page.evaluate("document.querySelector('canvas').getBoundingClientRect().toJSON()")
        panel.cameras.value, panel.measure.on.value = False, True
        page.click(pixel_of(client, first.frame.points(first.viewed.model.points[0]), canvas))
        wait_until(lambda: panel.measure.text.content.startswith(("Now the second", "No point")))
        hidden = shown_pixels(page)
        panel.cameras.value, panel.measure.on.value = True, False
        num_of_cameras = (no_points != empty).any(axis=2).sum()
        wait_until(lambda: (shown_pixels(page) != hidden).any(axis=2).sum() > 0.8 * num_of_cameras)
        page.click(pixel_of(client, np.array(first.thumbnails[4].position), canvas))
        wait_until(lambda: panel.images.selection is not None and panel.images.choice.value == "0: photo 4.jpg")
        page.wait_for("document.body.innerText.includes('focal length')")

        wait_until(lambda: client.camera.image_width < 0.7 * 1100)  # the image's panel takes its place
        click_button(page, "Look through this camera")
        wait_until(lambda: np.allclose(client.camera.position, first.frusta.shown_from_cam[4, :, 3], atol=1e-3))
        assert client.camera.wxyz @ client.camera.wxyz == pytest.approx(1)
        assert not first.thumbnails[4].visible
        bare = shown_pixels(page)
        panel.images.over.value = 100
        covered = shown_pixels(page)
        assert "overlay" in first.nodes and (bare != covered).any(axis=2).mean() > 0.1
        panel.images.close()
        assert first.thumbnails[4].visible and "overlay" not in first.nodes
        assert page.errors == []


# --------------------------------------------------------------------------------------------------- as a page of ours


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_a_title_and_follows_the_colours_of_the_system(viewer, output, scheme, tmp_path):
    colours = {"light": (241, 244, 247), "dark": BACKGROUND}
    with Page("about:blank") as page:
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.call("Page.navigate", url=viewer.url)
        page.wait_for(f"document.documentElement?.getAttribute('data-mantine-color-scheme') === '{scheme}'")
        page.wait_for("document.querySelectorAll('canvas').length > 0")
        assert page.evaluate("document.title") == f"{output.name} – AnchorSfM"
        other = "light" if scheme == "dark" else "dark"
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": other}])
        page.wait_for(f"document.documentElement?.getAttribute('data-mantine-color-scheme') === '{other}'")
        page.wait_for("document.body?.innerText.includes('points drawn')")
        assert tuple(shown_pixels(page)[0, 640]) == colours[other]
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        click_button(page, "Screenshot")
        saved = downloaded(tmp_path / "anchorsfm.png")
        assert (saved == colours[other]).all(axis=2).mean() > 0.3 > (saved == colours[scheme]).all(axis=2).mean()
        assert page.errors == []


def test_pictures_of_the_panel_open_large(viewer):
    with Page(viewer.url, (1280, 900)) as page:
        page.wait_for("document.querySelectorAll('canvas').length > 0")
        viewer.panel.images.pick(0, 1)
        try:
            panel = "[...document.querySelectorAll('#root img')].find(i => i.src.startsWith('blob:') && i.width > 100)"
            page.wait_for(f"Boolean({panel})")
            page.evaluate(f"{panel}.click()")
            page.wait_for("document.querySelector('dialog').open")
            page.wait_for("document.querySelector('dialog img').getBoundingClientRect().width > 900")
            page.evaluate("document.querySelector('dialog').click()")
            assert not page.evaluate("document.querySelector('dialog').open")
        finally:
            viewer.panel.images.close()
        assert page.errors == []


def test_the_controls_begin_folded_away_on_a_phone(viewer):
    with Page("about:blank") as page:
        page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        page.call("Page.navigate", url=viewer.url)
        label = (
            "[...document.querySelectorAll('#root div')].find(d => !d.children.length && d.textContent === 'AnchorSfM')"
        )
        page.wait_for(f"{label}?.getBoundingClientRect().top > 780")
