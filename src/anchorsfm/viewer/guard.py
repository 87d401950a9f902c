"""Who may talk to the viewer: only pages at the address that was printed, and only with what its own controls say.

A listening port of this machine can be reached by every program on it and, through the browser, by every web page that
is open: pages may open websockets to any address, and a name of theirs may be made to resolve to this machine ("DNS
rebinding"). So every request needs

- a secret in its path, drawn anew for each viewer: http://localhost:8080/SECRET/. The page builds the address of its
  websocket from its own, so nothing else has to know it;
- a `Host` that is a name of this machine;
- from browsers, an `Origin` that is that same host.

What those who are let in can do is look, and set the scale of the model on disk. For the latter there are controls only
where `may_change` says so: without the owner's leave nobody on another machine can change a file.

Of what a client sends, messages that the viewer's controls do not need are dropped before viser sees them: viser knows
messages that open a public tunnel, upload files, or set any attribute of a control, its callbacks included.

viser makes its server with `websockets.asyncio.server.serve`; `Guard.installed` stands in its way while that happens,
and `Guard.verify` makes sure that it did.
"""

import http
import ipaddress
import math
import secrets
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from anchorsfm.scene.errors import InputError

ChangesName = Literal["local", "everyone", "nobody"]
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine."""
_NEEDED = (
    "ViewerCameraMessage",
    "GuiUpdateMessage",
    "SceneNodeClickMessage",
    "ScenePointerMessage",
    "GetRenderResponseMessage",
)
"""Messages of the page that the viewer acts on."""
_LONGEST_TEXT = 4096
_PATIENCE_S = 10.0
_REFUSED = b"open the whole address that `anchorsfm view` printed: it holds a secret\n"


class Guard:
    """Lets in requests with the secret and drops messages that are not needed."""

    def __init__(self, host: str, dress: Callable[[bytes], bytes] = bytes) -> None:
        """host: address that the server listens on; dress: makes the page that is sent from that of viser."""
        self.secret = secrets.token_urlsafe(24)
        self.is_offered: Callable[[str, object], bool] = lambda uuid, value: True
        """Whether a control, by viser's id of it, can be given a value."""
        self._host, self._dress = host, dress

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Servers that are made in the meantime are guarded."""
        import websockets.asyncio.server as module

        serve = module.serve

        def guarded(handler: Callable[..., Any], *args: Any, process_request: Any = None, **kwargs: Any) -> Any:
            return serve(self._filtering(handler), *args, process_request=self._checking(process_request), **kwargs)

        module.serve = guarded  # type: ignore[assignment,misc]
        try:
            yield
        finally:
            module.serve = serve  # type: ignore[misc]

    def verify(self, port: int) -> None:
        """Raises InputError if the server on a port lets in requests without the secret."""
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        url = f"http://{f'[{address}]' if ':' in address else address}:{port}/"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(url, timeout=_PATIENCE_S).close()
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.FORBIDDEN:
                return
        except OSError as error:
            raise InputError(f"the viewer does not answer at {url}: {error}") from error
        raise InputError(
            "this version of viser cannot be kept from answering everyone: install another (pip install viser==1.1.1)"
        )

    # ------------------------------------------------------------------------------------------------- requests

    def inner_path(self, path: str) -> str | None:
        """The path of a request without the secret; None if it has another or none."""
        first, slash, rest = path.partition("?")[0].removeprefix("/").partition("/")
        known = secrets.compare_digest(first.encode("utf-8", "replace"), self.secret.encode())
        return slash + rest if known else None

    def admits(self, host: str | None, origin: str | None) -> bool:
        """Whether a request was sent to this machine by its name, and by no page from elsewhere.

        Programs other than browsers send no origin.
        """
        if host is None or not self._is_own(_hostname(host)):
            return False
        return origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")

    def _is_own(self, name: str | None) -> bool:
        if name is None:
            return False
        if name in ("localhost", "127.0.0.1", "::1", self._host.lower()):
            return True
        if self._host not in EVERYWHERE:
            return False
        own = {socket.gethostname().lower(), socket.getfqdn().lower()}
        return name in own | {f"{each}.local" for each in own} or _is_address(name)

    def _checking(self, inner: Any) -> Callable[..., Any]:
        """A `process_request` that refuses strangers and then asks `inner`."""
        from websockets.datastructures import Headers
        from websockets.http11 import Response

        def respond(status: http.HTTPStatus, body: bytes, **headers: str) -> Any:
            fields = {"Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}
            return Response(status, status.phrase, Headers(**fields), body)

        def process_request(connection: Any, request: Any) -> Any:
            hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
            path = self.inner_path(request.path)
            single = len(hosts) == 1 and len(origins) <= 1
            if path is None or not single or not self.admits(hosts[0], origins[0] if origins else None):
                return respond(http.HTTPStatus.FORBIDDEN, _REFUSED)
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return None
            if not path:  # relative addresses in the page need the slash
                return respond(http.HTTPStatus.PERMANENT_REDIRECT, b"", Location=f"/{self.secret}/")
            headers = Headers(request.headers)
            if path == "/":
                headers.pop("Accept-Encoding", None)  # the page itself is changed, so it must come as it is
            response = inner(connection, replace(request, path=path, headers=headers)) if inner is not None else None
            if response is not None and path == "/" and response.status_code == http.HTTPStatus.OK:
                response.body = self._dress(response.body)
                del response.headers["Content-Length"]
                response.headers["Content-Length"] = str(len(response.body))
            if response is not None:
                response.headers["Referrer-Policy"] = "no-referrer"  # the address is a secret
            return response

        return process_request

    # ------------------------------------------------------------------------------------------------- messages

    def is_needed(self, data: object) -> bool:
        """Whether a message of a client is one that the page's controls send, with values that they can have."""
        import msgspec

        try:
            message = msgspec.msgpack.decode(data) if isinstance(data, bytes) else None
        except (msgspec.DecodeError, RecursionError, ValueError):
            return False
        if not isinstance(message, dict) or message.get("type") not in _NEEDED:
            return False
        if message["type"] != "GuiUpdateMessage":
            return True
        uuid, updates = message.get("uuid"), message.get("updates")
        if not isinstance(uuid, str) or not isinstance(updates, dict) or list(updates) != ["value"]:
            return False
        return _is_plain(updates["value"]) and self.is_offered(uuid, updates["value"])

    def _filtering(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """A connection handler whose connection receives only messages that are needed."""

        async def handle(connection: Any) -> None:
            receive = connection.recv

            async def recv(*args: Any, **kwargs: Any) -> Any:
                while True:
                    data = await receive(*args, **kwargs)
                    if self.is_needed(data):
                        return data

            connection.recv = recv
            await handler(connection)

        return handle


def may_change(host: str, changes: ChangesName) -> bool:
    """Whether those who are let in may change the model on disk; `host`: the address that the viewer listens on."""
    if changes == "local":
        return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
    return changes == "everyone"


def is_within(control: Any, value: object) -> bool:
    """Whether a user can give one of viser's controls a value: one of its options, a number within its limits."""
    if hasattr(control, "options"):
        return value in tuple(control.options)
    if isinstance(control.value, bool):
        return isinstance(value, bool)
    if hasattr(control, "min") and hasattr(control, "max"):
        return isinstance(value, int | float) and not isinstance(value, bool) and control.min <= value <= control.max
    return True


def _is_plain(value: object) -> bool:
    """Whether a value is one that dropdowns, checkboxes, sliders and buttons can have."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    return isinstance(value, int | float) and math.isfinite(value)


def _hostname(host: str) -> str | None:
    """The name in a `Host` header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
