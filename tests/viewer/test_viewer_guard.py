"""Strangers at the viewer's port: who is let in, and what a client can have done."""

import http.client
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from anchorsfm.scene.errors import InputError
from anchorsfm.viewer.guard import Guard, is_within
from anchorsfm.viewer.server import Viewer, find_free_port, open_viewer
from finished_run import write_finished_run
from viewer_scene import coloured_model, write_output

viser = pytest.importorskip("viser")
msgspec = pytest.importorskip("msgspec")
PROTOCOL = f"viser-v{viser.__version__}"


@pytest.fixture(scope="module", params=["localhost", "0.0.0.0"])
def viewer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    output = write_output(tmp_path_factory.mktemp("guard") / "out", [coloured_model()])
    opened = open_viewer(output, host=request.param, port=find_free_port("127.0.0.1", 18480))
    yield opened
    opened.stop()


def page(viewer: Viewer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": f"localhost:{viewer.port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    return response


def visit(viewer: Viewer, path: str, *messages: object, origin: str | None = None, host: str | None = None) -> bytes:
    """The first message that the server sends to a websocket client that says something; raises if it is refused."""
    from websockets.sync.client import connect

    # the client takes Host from the address, and connects to where it is told
    address = f"ws://{host or f'localhost:{viewer.port}'}{path}"
    import socket as sockets

    with (
        sockets.create_connection(("127.0.0.1", viewer.port), timeout=10) as raw,
        connect(address, sock=raw, origin=origin, subprotocols=[PROTOCOL], proxy=None, max_size=None) as client,
    ):
        for message in messages:
            client.send(message if isinstance(message, str) else msgspec.msgpack.encode(message))
        first = client.recv(timeout=10)
        time.sleep(0.3 if messages else 0)
        return first


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_printed_address_is_let_in(viewer: Viewer) -> None:
    assert viewer.url == f"http://localhost:{viewer.port}/{viewer.secret}/" and len(viewer.secret) >= 32
    shown = page(viewer, f"/{viewer.secret}/")
    assert shown.status == 200 and shown.headers["Referrer-Policy"] == "no-referrer"
    moved = page(viewer, f"/{viewer.secret}")
    assert moved.status == 308 and moved.headers["Location"] == f"/{viewer.secret}/"
    assert visit(viewer, f"/{viewer.secret}", origin=f"http://localhost:{viewer.port}")
    assert visit(viewer, f"/{viewer.secret}")  # no browser, but it knows the secret


@pytest.mark.parametrize("path", ["/", "/index.html", "/{0}x/", "/x/{0}/", "//{0}/", "/?{0}", "/%2e/{0}/"])
def test_without_the_secret_nobody_is_let_in(viewer: Viewer, path: str) -> None:
    from websockets.exceptions import InvalidStatus

    path = path.format(viewer.secret)
    assert page(viewer, path).status == 403
    with pytest.raises(InvalidStatus, match="403"):
        visit(viewer, path)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", None),
        ("http://localhost:1", None),  # another port of this machine
        ("null", None),
        ("", None),
        ("http://localhost:{0}.evil.example", None),
        (None, "evil.example:{0}"),  # a name that was made to resolve to this machine
        ("http://evil.example:{0}", "evil.example:{0}"),
    ],
)
def test_other_origins_and_names_are_refused(viewer: Viewer, origin: str | None, host: str | None) -> None:
    from websockets.exceptions import InvalidStatus

    origin, host = (value and value.format(viewer.port) for value in (origin, host))
    with pytest.raises(InvalidStatus, match="403"):
        visit(viewer, f"/{viewer.secret}", origin=origin, host=host)
    headers = ({"Origin": origin} if origin is not None else {}) | ({"Host": host} if host else {})
    assert page(viewer, f"/{viewer.secret}/", **headers).status == 403


def test_all_names_of_the_machine_are_let_in_where_it_listens_for_everyone() -> None:
    everywhere, here = Guard("0.0.0.0"), Guard("127.0.0.1")
    assert everywhere.admits("192.168.0.7:8080", "http://192.168.0.7:8080")
    assert everywhere.admits("[fd00::7]:8080", None)
    assert not here.admits("192.168.0.7:8080", None)
    assert here.admits("LOCALHOST:9000", "http://localhost:9000")  # through a tunnel of ssh
    assert not here.admits(None, None) and not here.admits("[", None)


def test_a_client_cannot_open_a_tunnel(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(viewer.server, "request_share_url", lambda *a, **k: asked.append(a))
    monkeypatch.setattr(viewer.server, "disconnect_share_url", lambda *a, **k: asked.append(a))
    visit(viewer, f"/{viewer.secret}", {"type": "ShareUrlRequest"}, {"type": "ShareUrlDisconnect"})
    assert not asked


def test_a_client_sets_values_of_controls_and_nothing_else(viewer: Viewer) -> None:
    points, size = viewer.panel.points, viewer.panel.point_size
    callbacks = list(points._impl.update_cb)

    def update(control, **updates: object) -> dict[str, object]:
        return {"type": "GuiUpdateMessage", "uuid": control._impl.uuid, "updates": updates}

    before = size.value
    visit(
        viewer, f"/{viewer.secret}",
        update(points, update_cb=[]), update(points, removed=True), update(points, value=True, update_cb=[]),
        update(size, value=1e9), update(size, value=float("nan")), update(size, value="1"),
        update(viewer.panel.point_colour, value="no such colour"), "text", [1, 2], {"type": "FileTransferStartUpload"},
    )  # fmt: skip
    assert points._impl.update_cb == callbacks and not points._impl.removed
    assert size.value == before and viewer.panel.point_colour.value != "no such colour"
    visit(viewer, f"/{viewer.secret}", update(size, value=2.0))
    eventually(lambda: size.value == 2.0)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_a_client_sets_the_scale_on_disk_only_where_that_is_allowed(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_finished_run(tmp_path / "out")
    record = tmp_path / "out" / "transform.json"
    opened = open_viewer(tmp_path / "out", host=host, port=find_free_port("127.0.0.1", 18680))
    try:
        control, shown = opened.panel.measure, opened.panel.stage.models[0]
        labels = [getattr(each, "label", "") for each in opened.server.gui._gui_input_handle_from_uuid.values()]
        assert ("Set scale" in labels) == ("Metres" in labels) == (host == "localhost")
        if host != "localhost":
            return
        control.on.value = True
        eye, seen = shown.frusta.shown_from_cam[0, :, 3], shown.viewed.observations(0)
        for point in shown.viewed.model.tracks.obs_point[seen[[0, -1]]]:
            towards = shown.frame.points(shown.viewed.model.points[point]) - eye
            control.click(tuple(eye.tolist()), tuple(towards.tolist()))

        def update(what, value: object) -> dict[str, object]:
            return {"type": "GuiUpdateMessage", "uuid": what._impl.uuid, "updates": {"value": value}}

        # a browser is known once it has sent its camera
        monkeypatch.setattr(opened.server.gui, "_resolve_client", lambda _: SimpleNamespace())
        wrong = [update(control.metres, value) for value in (-1.0, 1e99, float("inf"), "2", True)]
        visit(opened, f"/{opened.secret}", *wrong, update(control.set, True))
        eventually(lambda: "give the distance" in control.text.content)
        assert control.metres.value == 0 and not record.exists()
        visit(opened, f"/{opened.secret}", update(control.metres, 3), update(control.set, True))
        eventually(lambda: "The scale is set" in control.text.content)
        assert record.exists()
    finally:
        opened.stop()


def test_values_within_the_limits_of_a_control() -> None:
    slider = SimpleNamespace(value=1.0, min=0.0, max=2.0)
    assert is_within(slider, 2) and not is_within(slider, 2.1) and not is_within(slider, True)
    assert is_within(SimpleNamespace(value="a", options=("a", "b")), "b")
    assert not is_within(SimpleNamespace(value="a", options=("a", "b")), "c")
    assert not is_within(SimpleNamespace(value=False), 3)


def test_a_server_that_is_not_guarded_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if viser made its server in another way."""
    from contextlib import nullcontext

    output = write_output(tmp_path / "out", [coloured_model()])
    monkeypatch.setattr(Guard, "installed", lambda self: nullcontext())
    with pytest.raises(InputError, match="version of viser"):
        open_viewer(output, port=find_free_port("127.0.0.1", 18580))


def test_messages_that_cannot_be_read_are_dropped() -> None:
    guard = Guard("127.0.0.1")
    for data in (b"", b"\xc1", b"\x91" * 100_000, "text", None, msgspec.msgpack.encode({"type": ["x"]})):
        assert not guard.is_needed(data)
    assert guard.is_needed(msgspec.msgpack.encode({"type": "ViewerCameraMessage"}))
