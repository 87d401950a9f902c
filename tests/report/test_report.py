"""What a run says about itself: figures with known answers, the page, and what happens when something is missing."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.report import PairLog, diagrams
from anchorsfm.report.depth import DepthLog, stored_pictures
from anchorsfm.report.figures import histogram, links, residual_field, shared_points, top_view
from anchorsfm.report.folder import make_page, try_page
from anchorsfm.report.json_text import report_json
from anchorsfm.report.pictures import BUDGET, LARGE_SIDE, MAX_SIDE, MIN_SIDE, photograph_side, picture_side
from anchorsfm.report.shared_points import BUDGET as BUDGET_OF_MATCHES
from anchorsfm.report.shared_points import MAX_PER_PAIR, embedded_matches
from anchorsfm.report.space import MAX_POINTS, ColouredPoints, describe_space
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.progress import SILENT, RecordingProgress
from anchorsfm.tracks.residuals import residual_vectors
from browser import Page
from report_scene import ring_model, ring_pairs, write_synthetic_run

SCRIPT = "</script><script>alert(2)</script>.jpg"
NASTY = "<img src=x onerror=alert(1)> &\"quoted'.jpg"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of eight photographs, one of which is not registered and one of which has an awkward name."""
    output = tmp_path_factory.mktemp("report") / "out"
    names = [f"{k:04d}.jpg" for k in range(8)]
    names[1], names[5] = NASTY, SCRIPT
    models = write_synthetic_run(output, 8, names=names)
    make_page(output, models=models)
    return output


def report_of(output: Path) -> dict:
    return json.loads((output / "report.json").read_text())


# ------------------------------------------------------------------------------------------------------------ figures


def test_a_histogram_counts_every_value_once():
    values = np.concatenate([np.linspace(0, 10, 1000), [500.0, np.nan, np.inf]])
    found = histogram(values, 40)
    assert sum(found.counts) + found.above == 1001
    assert len(found.edges) == len(found.counts) + 1 and found.edges[0] == 0
    assert found.median == pytest.approx(5.0, abs=0.02)
    assert np.ptp(np.diff(found.edges)) < 1e-6
    nothing = histogram(np.zeros(0), 40)
    assert sum(nothing.counts) == 0 and nothing.median is None


def test_a_shifted_principal_point_shows_in_every_cell():
    model = ring_model(8)
    camera = model.cameras[0]
    moved = (replace(camera, params=(camera.params[0], camera.params[1] + 3, camera.params[2] - 2, camera.params[3])),)
    before, after = (residual_field(m, 0, residual_vectors(m)) for m in (model, replace(model, cameras=moved)))
    assert before.columns * before.rows == len(before.count) == len(before.rms_px)
    assert sum(before.count) == len(model.tracks.obs_point)
    for x0, x1, y0, y1 in zip(before.mean_x_px, after.mean_x_px, before.mean_y_px, after.mean_y_px, strict=True):
        assert (x0 is None) == (x1 is None)
        if x0 is not None:
            assert x1 - x0 == pytest.approx(3, abs=0.01) and y1 - y0 == pytest.approx(-2, abs=0.01)


def test_stronger_distortion_points_outwards():
    model = ring_model(8, 4000)
    camera = model.cameras[0]
    stronger = replace(model, cameras=(replace(camera, params=(*camera.params[:3], camera.params[3] + 0.1)),))
    field = residual_field(stronger, 0, residual_vectors(stronger))
    x, y = np.meshgrid((np.arange(field.columns) + 0.5) / field.columns, (np.arange(field.rows) + 0.5) / field.rows)
    outwards = np.stack([(x.ravel() - 0.5) * field.width, (y.ravel() - 0.5) * field.height], axis=1)
    well_seen = (np.array(field.count) > 20) & (np.linalg.norm(outwards, axis=1) > 200)
    vector = np.stack([field.mean_x_px, field.mean_y_px], axis=1)[well_seen].astype(float)
    assert field.systematic > 0.8
    assert residual_field(model, 0, residual_vectors(model)).systematic < 0.01, "noise has no pattern"
    assert well_seen.sum() > 10 and ((vector * outwards[well_seen]).sum(axis=1) > 0).all()


def test_links_count_common_points_and_the_tree_reaches_all():
    model = ring_model(9, 800)
    seen = np.zeros((len(model.points), 9), int)
    seen[model.tracks.obs_point, model.tracks.obs_image] = 1
    assert np.array_equal(shared_points(model).toarray(), seen.T @ seen)
    found = links(model)
    assert all(i < j and (seen[:, i] & seen[:, j]).sum() == n for i, j, n in zip(found.i, found.j, found.shared,
                                                                                  strict=True))  # fmt: skip
    assert len(found.tree) == 8 and set(np.ravel(found.tree).tolist()) == set(range(9))
    assert found.total == len(found.i) == np.count_nonzero(np.triu(seen.T @ seen, 1))
    kinematic = links(model, np.array([[3, 2], [4, 20]]))
    assert kinematic.tree == ((2, 3),) and kinematic.tree_of != found.tree_of


def test_the_view_from_above_has_up_against_the_cameras_down():
    view = top_view(ring_model(12))
    assert np.allclose(view.up, [0, -1, 0], atol=1e-6)
    assert np.allclose(np.hypot(view.x, view.y), 3, atol=1e-5) and np.allclose(view.height, 0.6, atol=1e-5)


def test_pairs_are_columns():
    log = PairLog()
    predictions = list(log.watch(ring_pairs(5)))
    columns = log.columns()
    assert len(columns.i) == len(predictions) == 10
    assert columns.statuses[columns.status[columns.j.index(2)]] == "pure rotation"
    assert columns.matches == tuple(len(p.matches) for p in predictions)


def test_pairs_say_which_detectors_matched_them():
    log, given = PairLog(), ring_pairs(5)
    named = [replace(p, methods=m) for p, m in zip(given, [("sift",), (), ("sift", "aliked")], strict=False)]
    for _ in log.watch(named):
        pass
    columns = log.columns()
    assert columns.methods == ("sift", "sift + aliked") and columns.method == (0, -1, 1)
    assert PairLog().columns().methods == ()


def test_pairs_that_contradict_others_are_counted_drawn_and_named():
    log = PairLog()
    for _ in log.watch(ring_pairs(4, reach=2)):  # 0-1, 0-2 (a pure rotation), 1-2, 1-3, 2-3
        pass
    log.believe(confirmed=np.array([(0, 1)]), rejected=np.array([(2, 3), (1, 3)]))
    assert log.belief() == {"confirmed": 1, "unconfirmed": 2, "contradicted": 2}
    assert log.status == {"ok": 2, "pure rotation": 1, "contradicted": 2}
    assert "contradict" in log.reason(3) and "rotation" in log.reason(0)
    columns = log.columns()
    rows = [row for row, status in enumerate(columns.status) if columns.statuses[status] == "contradicted"]
    assert [(columns.i[row], columns.j[row]) for row in rows] == [(1, 3), (2, 3)]
    assert all(columns.matches[row] > 0 for row in rows)
    picture = Image.open(io.BytesIO(diagrams.matrix_png(asdict(columns), 4)[0]))
    assert picture.getpixel((3, 1)) == picture.getpixel((2, 3)) == (234, 88, 12, 255) != picture.getpixel((1, 0))


def test_json_keeps_columns_on_one_line_and_has_no_nan():
    text = report_json({"a": {"column": [1, 2, 3], "bad": [float("nan"), np.float64(1.5)], "s": ['"<>', "b"]}, "e": []})
    assert json.loads(text) == {"a": {"column": [1, 2, 3], "bad": [None, 1.5], "s": ['"<>', "b"]}, "e": []}
    assert "[1, 2, 3]" in text


def test_depth_maps_become_pictures_and_figures(tmp_path):
    model, path = ring_model(3), tmp_path / "pictures"
    log = DepthLog(3)
    log.begin_model(model)
    depth = np.full((60, 80), 2.5)
    confidence = np.where(np.arange(60)[:, None] < 15, 0.0, 3.0) * np.ones((60, 80))
    log.add(1, depth, confidence)
    log.add(2, np.full((60, 80), np.nan), np.zeros((60, 80)))
    found = log.finish(path)
    assert found.images[0].known == 0.75 and found.images[0].median == 2.5
    assert found.images[1].known == 0 and found.images[1].median is None
    in_view = [model.points[model.tracks.obs_point] @ pose[2, :3] + pose[2, 3] for pose in model.cam_from_world]
    depths = np.choose(model.tracks.obs_image, in_view)
    assert 0.95 < ((depths > found.limits[0][0]) & (depths < found.limits[0][1])).mean() <= 1
    pictures = stored_pictures(path, found.entry)
    shown = np.array(Image.open(io.BytesIO(pictures["1-depth"])))
    assert shown.shape == (60, 80, 3)
    assert np.ptp(shown[:12].astype(int)) < 40, "unknown is grey"
    assert np.ptp(shown[20:, :, :].mean(axis=(0, 1))) > 60, "known is coloured"
    assert DepthLog(3).finish(tmp_path / "none") is None and not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="another run"):
        stored_pictures(path, "of another run")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged"):
        stored_pictures(path, found.entry)


def test_pictures_share_a_budget():
    assert picture_side(20) == MAX_SIDE and photograph_side(20) == LARGE_SIDE
    assert photograph_side(1000) == picture_side(1000)
    for count in (500, 2000, 9000):
        side = picture_side(count)
        assert MIN_SIDE <= side < MAX_SIDE and side * side * 0.75 * 0.3 * count < 1.01 * BUDGET


def test_a_large_cloud_is_thinned_and_outliers_are_left_out():
    model = ring_model(6)
    rng = np.random.default_rng(0)
    points = np.concatenate([model.points, [[1e5, 0, 0]]])
    model = replace(model, points=points, rgb=np.zeros((len(points), 3), np.uint8), error_px=np.zeros(len(points)))
    dense = ColouredPoints(xyz=rng.uniform(-1, 1, (400_000, 3)), rgb=np.zeros((400_000, 3), np.uint8))
    found = describe_space(model, dense, images=list(range(6)))
    assert found["points"]["of"] == len(points) and found["points"]["count"] == len(points) - 1
    assert found["dense"]["count"] == MAX_POINTS and found["dense"]["of"] == 400_000
    assert len(found["dense"]["xyz"]) == 4 * -(-6 * MAX_POINTS // 3)
    assert found["unit"] < 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (4.0, "4"),
        (0.31298, "0.313"),
        (48243, "48\u202f243"),
        (2.5e-7, "2.50×10⁻⁷"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_for_people(value, text):
    assert diagrams.number(value) == text


def test_times_for_people():
    assert [diagrams.duration(s) for s in (0.08, 23.24, 150.0, 7300.0)] == ["0.08 s", "23.2 s", "2.5 min", "2 h 02 min"]


# --------------------------------------------------------------------------------------------------------------- page


def test_the_page_is_one_file_and_escapes_names(finished):
    page = (finished / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert "<script>alert" not in page and page.count("</script>") == 5
    for kind in ("src", "href"):
        for target in re.findall(rf'\b{kind}="([^"]*)"', page):
            assert target.startswith(("data:image/", "#")), target
    assert "@import" not in page and "url(" not in page


def test_the_page_says_what_report_json_says(finished):
    report, page = report_of(finished), (finished / "report.html").read_text()
    assert report["schema_version"] == 1
    assert "7 of 9 images registered" in page
    for image in report["images"]:
        if image["model"] is not None:
            assert f'data-points="{image["observations"]}" data-error="{image["mean_error_px"]}"' in page
        else:
            assert image["reason"] in page
    for kind in ("reprojection_error_px", "track_length", "triangulation_angle_deg"):
        assert f"median {diagrams.number(report['models'][0]['figures'][kind]['median'])}" in page
    assert "23.2 s" in page and "640 MiB" in page and "classical.dense.size" in page
    assert page.count('class="card weak"') == 1 and page.count('class="card skipped"') == 1


def test_the_page_from_disk_is_the_same(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    page = make_page(copy)
    assert page.read_bytes() == (finished / "report.html").read_bytes()


def test_a_camera_model_that_came_to_nothing_does_not_cost_the_page(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    report = report_of(finished)
    trial = {"camera_model": "OPENCV_FISHEYE", "score": 28.9, "median_error_px": None, "focal_px": None}
    report["models"][0]["lenses"] = [{"camera_model": "RADIAL", "trials": [trial]}]
    for path in (tmp_path / "out" / "report.json", tmp_path / "out" / "report.html"):
        path.unlink()
    (tmp_path / "out" / "report.json").write_text(json.dumps(report))
    assert "OPENCV_FISHEYE failed" in make_page(tmp_path / "out").read_text()


def test_a_page_without_a_model_says_why(finished, tmp_path):
    report = report_of(finished) | {"models": [], "alignments": [], "depth": None}
    for image in report["images"]:
        image |= {"model": None, "camera": None, "observations": 0, "reason": "no overlap found"}
    report["image_root"] = str(finished / "photos")
    (tmp_path / "report.json").write_text(json.dumps(report))
    page = make_page(tmp_path).read_text()
    assert "No model could be made" in page and "<canvas" not in page and "no overlap found" in page


def test_what_is_gone_is_a_warning_and_the_page_goes_on(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "sparse")
    (copy / "dense" / "pictures.safetensors").unlink()
    (copy / "dense" / "0.ply").write_bytes((copy / "dense" / "0.ply").read_bytes()[:1000])
    report = report_of(copy)
    report["image_root"] = str(copy / "photos")
    (copy / "report.json").write_text(json.dumps(report))
    (copy / "photos" / "0003.jpg").unlink()
    before = (copy / "report.html").read_bytes()
    with pytest.raises(InputError, match=r"stays as it is.*delete it"):
        make_page(copy)
    assert (copy / "report.html").read_bytes() == before
    (copy / "report.html").unlink()
    warnings = RecordingProgress(SILENT)
    page = make_page(copy, progress=warnings).read_text()
    assert "no picture" in page and "no longer there" in page and "<canvas" not in page
    assert len(warnings.warnings) == 3, warnings.warnings
    assert any("0003.jpg" in line for line in warnings.warnings) and any("sparse" in line for line in warnings.warnings)


def test_photographs_that_were_moved(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    report = report_of(copy)
    wanted = (finished / "report.html").read_text()
    (copy / "report.json").write_text(json.dumps(report | {"image_root": "/nowhere/photos"}))
    (copy / "report.html").unlink()
    warnings = RecordingProgress(SILENT)
    assert make_page(copy, progress=warnings).read_text().count("no picture") == 8
    assert "/nowhere/photos/0000.jpg" in warnings.warnings[0] and "and 7 more" in warnings.warnings[0]
    page = make_page(copy, photos=copy / "photos").read_text()
    assert page == wanted.replace(report["image_root"], "/nowhere/photos")
    with pytest.raises(InputError, match="no such folder"):
        make_page(copy, photos=copy / "pictures")


def test_a_damaged_dense_cloud_leaves_the_sparse_points(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    (copy / "dense" / "0.ply").write_bytes((copy / "dense" / "0.ply").read_bytes()[:1000])
    (copy / "report.html").unlink()
    warnings = RecordingProgress(SILENT)
    page = make_page(copy, progress=warnings).read_text()
    assert "<canvas" in page and '"dense": null' in page
    assert len(warnings.warnings) == 1 and "0.ply" in warnings.warnings[0]


def test_a_page_that_cannot_be_made_does_not_lose_the_run(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    warnings = RecordingProgress(SILENT)
    try_page(tmp_path / "out", tmp_path, [], warnings)
    assert len(warnings.warnings) == 1 and not (tmp_path / "report.html").exists()
    assert "report.html" in warnings.warnings[0] and f"anchorsfm report {tmp_path / 'out'}" in warnings.warnings[0]


def test_a_page_of_somebody_else_is_not_replaced(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    (copy / "report.html").write_text("mine")
    with pytest.raises(StorageError, match=r"report\.html was changed"):
        make_page(copy)
    assert (copy / "report.html").read_text() == "mine"


def test_a_model_of_another_run_is_noticed(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    report = report_of(copy)
    report["models"][0]["points"] += 1
    (copy / "report.json").write_text(json.dumps(report))
    with pytest.raises(
        InputError, match=r"the model .*sparse/0 has 7 images and .* points, that of report\.json 7 and"
    ):
        make_page(copy)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg"])
def test_a_report_does_not_lead_to_pictures_elsewhere(finished, tmp_path, name):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    report = report_of(copy)
    report["images"][7]["name"] = name
    (copy / "report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"report\.json names a file outside"):
        make_page(copy)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no .*report.json"), ("{", "not JSON"), ('{"images": []}', "schema_version None")]
)
def test_no_report_to_make_a_page_from(tmp_path, content, words):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=words):
        make_page(tmp_path)


def test_the_command_makes_the_page_again(finished, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    (copy / "report.html").unlink()
    command = [sys.executable, "-m", "anchorsfm", "report"]
    result = subprocess.run([*command, copy, "--quiet"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert str(copy / "report.html") in result.stdout
    assert (copy / "report.html").read_bytes() == (finished / "report.html").read_bytes()
    wrong = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    assert wrong.returncode == 2 and len(wrong.stderr.strip().splitlines()) == 1 and "report.json" in wrong.stderr


# ------------------------------------------------------------------------------------------------------------ browser


@pytest.fixture(scope="module")
def page(finished):
    """The page in a window; tests leave it as they find it."""
    with Page((finished / "report.html").as_uri(), (1280, 900)) as page:
        yield page


def canvas(page: Page) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The pixels of the 3D view, and where it is in the window (left, top, right, bottom)."""
    page.evaluate("document.getElementById('space').scrollIntoView({behavior: 'instant'})")
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    found = page.evaluate(
        "(r => [r.left, r.top, r.right, r.bottom])(document.querySelector('canvas').getBoundingClientRect())"
    )
    left, top, right, bottom = (round(value) for value in found)
    return page.screenshot()[max(top, 60) + 6 : bottom - 6, left + 6 : right - 6].astype(int), (
        left,
        top,
        right,
        bottom,
    )


def share_drawn(pixels: np.ndarray) -> float:
    return float((np.abs(pixels - pixels[5, 5]).sum(axis=2) > 40).mean())


def test_the_view_draws_and_turns(page):
    before, (left, top, right, bottom) = canvas(page)
    assert 0.01 < share_drawn(before) < 0.9
    x, y = (left + right) / 2, (top + bottom) / 2
    page.drag((x, y), (x + 160, y + 30))
    turned, _ = canvas(page)
    assert np.abs(turned - before).max(axis=2).mean() > 1
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-400)
    nearer, _ = canvas(page)
    assert share_drawn(nearer) > 1.1 * share_drawn(turned)
    for key in ("dense", "cameras"):
        page.evaluate(f"document.querySelector('[data-tool={key}]').click()")
    empty, _ = canvas(page)
    assert share_drawn(empty) == 0
    for key in ("dense", "cameras", "home"):
        page.evaluate(f"document.querySelector('[data-tool={key}]').click()")
    again, _ = canvas(page)
    assert np.abs(again - before).max(axis=2).mean() < 0.5
    assert page.errors == []


def test_keys_turn_the_view(page):
    before, _ = canvas(page)
    page.evaluate("document.querySelector('canvas').focus({preventScroll: true})")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)
    turned, _ = canvas(page)
    assert np.abs(turned - before).max(axis=2).mean() > 0.5
    page.evaluate("document.querySelector('[data-tool=home]').click()")


def test_two_fingers_zoom(page):
    before, (left, top, right, bottom) = canvas(page)
    x, y = (left + right) / 2, (top + bottom) / 2
    for kind, apart in (("touchStart", 60), ("touchMove", 90), ("touchMove", 150), ("touchEnd", None)):
        fingers = [] if apart is None else [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        page.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
    nearer, _ = canvas(page)
    assert share_drawn(nearer) > 1.3 * share_drawn(before)
    page.evaluate("document.querySelector('[data-tool=home]').click()")


def test_the_contact_sheet_sorts_and_filters(page, finished):
    images = report_of(finished)["images"]

    def shown() -> list[int]:
        return page.evaluate("[...document.querySelectorAll('#images .card:not([hidden])')].map(c => +c.dataset.row)")

    def set_tool(name: str, value: str) -> None:
        page.evaluate(
            f"(t => {{ t.value = {json.dumps(value)}; t.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(document.getElementById('sheet-tools').elements[{json.dumps(name)}])"
        )

    assert shown() == list(range(9))
    set_tool("sort", "points")
    counts = [images[row]["observations"] for row in shown()]
    assert counts == sorted(counts)
    set_tool("sort", "error")
    errors = [images[row]["mean_error_px"] for row in shown()]
    assert errors[:7] == sorted(errors[:7], reverse=True) and errors[7:] == [None, None]
    set_tool("sort", "row")
    set_tool("show", "in")
    assert shown() == list(range(7))
    set_tool("show", "weak")
    assert shown() == [2]
    set_tool("show", "")
    set_tool("find", "ONERROR")
    assert shown() == [1]
    set_tool("find", "")
    assert page.errors == []


def test_a_chosen_image_is_marked_everywhere(page):
    before, _ = canvas(page)
    page.evaluate("document.querySelector('#image-4 .name').click()")
    marked, _ = canvas(page)
    assert np.abs(marked - before).max() > 60
    assert page.evaluate("[...document.querySelectorAll('.node.chosen')].map(n => n.dataset.image).join()") == "4"
    page.evaluate("document.dispatchEvent(new CustomEvent('choose', {detail: {image: -1}}))")
    assert page.evaluate("document.querySelectorAll('.chosen:not(.trial)').length") == 0


def test_the_matrix_can_be_read(page, finished):
    pairs = report_of(finished)["pair_list"]
    page.evaluate("document.getElementById('matches').scrollIntoView({behavior: 'instant'})")
    left, top, width = page.evaluate(
        "(r => [r.left, r.top, r.width])(document.getElementById('matrix').getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + 3.5 / 8 * width, y=top + 4.5 / 8 * width)
    row = next(k for k, pair in enumerate(zip(pairs["i"], pairs["j"], strict=True)) if pair == (3, 4))
    page.wait_for("document.getElementById('pair').textContent.includes('verified')")
    assert page.evaluate("document.getElementById('pair').textContent") == (
        f"0003.jpg and 0004.jpg: ok, {pairs['matches'][row]} verified matches"
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_window_needs_no_sideways_scrolling(finished, theme):
    with Page("about:blank", (360, 740)) as page:
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        page.call("Page.navigate", url=(finished / "report.html").as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelectorAll('canvas').length == 1")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        sharpness = "document.querySelector('canvas').width / document.querySelector('canvas').clientWidth"
        pixels, _ = canvas(page)
        assert page.evaluate(sharpness) == 1
        page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        page.wait_for(f"{sharpness} == 2")
        assert 0.005 < share_drawn(pixels) < 0.9
        assert (pixels[5, 5].mean() > 128) == (theme == "light")
        assert page.errors == []


def test_without_webgl_the_page_says_so(finished):
    with Page("about:blank") as page:
        page.call(
            "Page.addScriptToEvaluateOnNewDocument", source="HTMLCanvasElement.prototype.getContext = () => null;"
        )
        page.call("Page.navigate", url=(finished / "report.html").as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelectorAll('canvas').length == 1")
        assert page.evaluate("document.querySelector('.message').checkVisibility()")
        assert "WebGL" in page.evaluate("document.querySelector('.message').textContent")
        assert page.errors == []


# --------------------------------------------------------------------------------------------- photographs and matches

LARGE = "document.getElementById('large')"


def test_a_photograph_opens_large_and_arrow_keys_go_on(page):
    page.evaluate("document.querySelector('#image-0 .enlarge').click()")
    width = f"{LARGE}.querySelector('img').getBoundingClientRect().width"
    page.wait_for(f"{LARGE}.open && {LARGE}.querySelector('img').complete && {width} > 0")
    assert page.evaluate(width) > 2 * page.evaluate(
        "document.querySelector('#image-0 img').getBoundingClientRect().width"
    )
    names = [page.evaluate(f"{LARGE}.querySelector('h3').textContent")]
    press(page, "ArrowRight")
    names.append(page.evaluate(f"{LARGE}.querySelector('h3').textContent"))
    assert names == [page.evaluate(f"document.querySelector('#image-{k}').dataset.name") for k in (0, 1)]
    press(page, "Escape")
    page.wait_for(f"!{LARGE}.open")
    assert page.errors == []


def press(page: Page, key: str) -> None:
    codes = {
        "Tab": 9,
        "Enter": 13,
        "Escape": 27,
        "End": 35,
        "Home": 36,
        "ArrowLeft": 37,
        "ArrowRight": 39,
        "ArrowDown": 40,
    }
    typed = {"text": "\r"} if key == "Enter" else {}
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=codes[key], **typed)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=codes[key])


def test_the_matrix_can_be_used_by_keyboard(page, finished):
    named = "document.activeElement.getAttribute('aria-label')"
    names = [image["name"] for image in report_of(finished)["images"] if image["size_wh"] is not None]
    page.evaluate("document.getElementById('matrix').scrollIntoView({block: 'center', behavior: 'instant'})")
    page.evaluate("document.querySelector('.matrix [role=gridcell]').focus()")
    assert page.evaluate(named).startswith(f"{names[0]} and {names[1]}: ") and "verified" in page.evaluate(named)
    for key, row, column in (("ArrowDown", 1, 1), ("ArrowRight", 1, 2), ("Home", 1, 0), ("ArrowLeft", 1, 0)):
        press(page, key)
        place = "[e => e.parentElement.ariaRowIndex, e => e.ariaColIndex].map(f => f(document.activeElement) - 1)"
        assert page.evaluate(place) == [row, column]
    assert page.evaluate("document.querySelectorAll('.matrix [role=gridcell]').length") == 1
    assert page.evaluate("document.getElementById('pair').textContent") == page.evaluate(named)
    cell, matrix = (
        page.evaluate(f"(r => [r.left, r.top, r.width, r.height])({what}.getBoundingClientRect())")
        for what in ("document.activeElement", "document.getElementById('matrix')")
    )
    share = matrix[2] / len(names)
    assert np.allclose(cell, (matrix[0], matrix[1] + share, share, share), atol=2)
    press(page, "Enter")
    page.wait_for(f"{LARGE}.open")
    assert page.evaluate(f"{LARGE}.querySelector('h3').textContent") == f"{names[0]} and {names[1]}"
    press(page, "Escape")
    page.wait_for(f"!{LARGE}.open")
    assert page.evaluate(named).startswith(f"{names[0]} and {names[1]}: ")
    press(page, "End")
    assert page.evaluate(named).startswith(f"{names[1]} and {names[-1]}: ")
    tree = {
        k: page.evaluate(f"document.querySelector('.matrix').getAttribute('{k}')") for k in ("role", "aria-colcount")
    }
    assert tree == {"role": "grid", "aria-colcount": str(len(names))}
    page.evaluate("document.activeElement.blur()")
    assert "arrows" in page.evaluate("document.getElementById('pair').textContent")
    assert page.errors == []


def test_images_are_chosen_by_keyboard_too(page):
    page.evaluate("document.querySelector('#image-2 .enlarge').focus()")
    assert page.evaluate("document.querySelector('#images .chosen').id") == "image-2"


def test_a_cell_of_the_matrix_shows_the_points_of_its_pair(page, finished):
    page.evaluate("document.getElementById('matrix').scrollIntoView({block: 'center', behavior: 'instant'})")
    left, top, side = page.evaluate(
        "(r => [r.left, r.top, r.width])(document.getElementById('matrix').getBoundingClientRect())"
    )
    cells = sum(image["size_wh"] is not None for image in report_of(finished)["images"])
    page.click((left + 1.5 * side / cells, top + 0.5 * side / cells))
    page.wait_for(f"{LARGE}.open")
    assert page.evaluate(f"{LARGE}.querySelectorAll('image').length") == 2
    drawn = page.evaluate(f"{LARGE}.querySelectorAll('circle').length") // 2
    said = page.evaluate(f"{LARGE}.querySelector('.hint').textContent")
    assert 0 < drawn <= MAX_PER_PAIR and f"{drawn} of them drawn" in said
    assert page.evaluate(
        f"[...{LARGE}.querySelectorAll('circle')].every(c => c.cx.baseVal.value >= 0 && c.cy.baseVal.value <= 1000)"
    )
    page.evaluate(f"{LARGE}.close()")
    assert page.errors == []


def test_matches_of_pairs_are_where_both_photographs_see_the_points():
    model = ring_model(8, 900)
    rows = [9, 8, 7, 6, 5, 4, 3, 2]
    content = embedded_matches([model], [rows])
    assert max(content["count"]) == MAX_PER_PAIR and content["shared"] == sorted(content["shared"], reverse=True)
    xy = np.frombuffer(base64.b64decode(content["xy"]), "<u2").reshape(-1, 4) / 65535
    camera, row = model.cameras[0], 0
    tracks = model.tracks
    for i, j, shared, count in zip(*(content[key] for key in ("i", "j", "shared", "count")), strict=True):
        assert i < j
        a, b = (
            {point: tuple(at) for point, at in zip(tracks.obs_point[of], tracks.obs_xy[of], strict=True)}
            for of in (tracks.obs_image == rows.index(i), tracks.obs_image == rows.index(j))
        )
        both = np.array([[*a[p], *b[p]] for p in a.keys() & b.keys()]) / np.tile([camera.width, camera.height], 2)
        assert len(both) == shared
        for place in xy[row : row + count]:
            assert np.abs(both - place).max(axis=1).min() < 1e-5
        row += count
    assert row == len(xy)


def test_many_pairs_share_a_budget():
    content = embedded_matches([ring_model(120, 4000)], [list(range(120))])
    pairs = len(content["count"])
    assert pairs > 3200 and sum(content["count"]) * 8 <= BUDGET_OF_MATCHES
    assert max(content["count"]) < MAX_PER_PAIR


def test_names_that_would_control_a_page_are_shown_harmlessly(tmp_path):
    """Escape sequences, controls and overrides of the direction of text, in the page and in what scripts read."""
    names = ["a\x1b[31mred.jpg", "b\x07\x08.jpg", "c\u202egpj.exe.jpg", "d</script><b>.jpg"]
    write_synthetic_run(tmp_path, 4, names=names, num_missing=0)
    make_page(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not [c for c in text if c in "\x1b\x07\x08\u202e\u200e\x7f\x9b" or (ord(c) < 32 and c not in "\n\t\r")]
    assert "</script><b>" not in text
    with Page((tmp_path / "report.html").as_uri()) as page:
        assert page.evaluate("document.querySelectorAll('.card .name').length") == 5
        page.evaluate("document.querySelector('#image-0 .enlarge').click()")
        assert "red.jpg" in page.evaluate(f"{LARGE}.querySelector('h3').textContent")
        assert page.errors == []


def test_settings_stay_folded_in_print(page):
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.evaluate("[...document.querySelectorAll('details')].every(d => !d.open && !d.checkVisibility())")
    finally:
        page.call("Emulation.setEmulatedMedia", media="")
