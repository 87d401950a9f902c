"""The server: a free port, viser without its own messages, the page."""

import errno
import logging
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorsfm.scene.errors import InputError
from anchorsfm.viewer.guard import EVERYWHERE, ChangesName, Guard, is_within, may_change
from anchorsfm.viewer.page import dressed, title_of
from anchorsfm.viewer.sources import read_folder

_NUM_PORTS = 100
_NO_VISER = "looking at a reconstruction in the browser needs an extra package: pip install 'anchorsfm[viewer]'"


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A running viewer."""

    server: Any
    """viser.ViserServer"""
    panel: Any
    """Panel"""
    host: str
    port: int
    secret: str
    """Part of the address, without which nobody is let in."""
    notes: tuple[str, ...]
    """What the user should know, a line each."""

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = "localhost" if self.host in ("127.0.0.1", *EVERYWHERE) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{self.secret}/"

    def lines(self) -> list[str]:
        """What to tell the user."""
        lines = [f"note: {note}" for note in self.notes]
        lines.append(f"open {self.url} in a browser; Ctrl-C ends")
        if self.host == "127.0.0.1":
            forward = f"ssh -L {self.port}:localhost:{self.port} USER@{socket.gethostname()}"
            lines.append(f"if your browser is on another computer, first run there: {forward}")
        elif self.host in EVERYWHERE:
            elsewhere = f"http://{socket.gethostname()}:{self.port}/{self.secret}/"
            lines.append(f"from other computers, for everyone who knows this address: {elsewhere}")
        return lines

    def wait(self) -> None:
        """Serve until interrupted."""
        while True:
            time.sleep(3600)

    def stop(self) -> None:
        """Close the page and free the port."""
        self.panel.stop()
        self.server.stop()


def open_viewer(
    folder: Path,
    *,
    images: Path | None = None,
    host: str = "localhost",
    port: int = 8080,
    max_points: int = 500_000,
    changes: ChangesName = "local",
) -> Viewer:
    """Read what a folder holds and serve it on the first free port from `port` on.

    `changes`: who may set the scale of a model on disk.

    Raises InputError if viser is not installed, there is nothing to show, or the address cannot be used.
    """
    viser = _import_viser()
    content = read_folder(folder, images)
    address = "127.0.0.1" if host == "localhost" else host
    free = find_free_port(address, port)
    _silence()
    guard = Guard(address, dress=lambda page: dressed(page, title_of(folder)))
    with guard.installed():
        server = viser.ViserServer(host=address, port=free, label="AnchorSfM", verbose=False)
    try:
        guard.verify(server.get_port())
    except InputError:
        server.stop()
        raise
    guard.is_offered = lambda uuid, value: _is_offered(server, uuid, value)
    from anchorsfm.viewer.panel import Panel

    panel = Panel(server, content, max_points=max_points, may_change=may_change(address, changes))
    taken = server.get_port()
    notes = content.notes + panel.problems + ((f"port {port} is in use: taking {taken}",) if taken != port else ())
    return Viewer(server=server, panel=panel, host=address, port=taken, secret=guard.secret, notes=notes)


def _is_offered(server: Any, uuid: str, value: object) -> bool:
    """Whether a user can give a control a value; viser itself ignores controls that it does not know."""
    control = getattr(server.gui, "_gui_input_handle_from_uuid", {}).get(uuid)
    return control is None or is_within(control, value)


def find_free_port(host: str, port: int) -> int:
    """The first port from `port` on that nobody listens on.

    Raises InputError if the host is not this machine's, the port may not be used, or none of the next is free.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port} is not a port: choose one of 1024 .. 65535")
    last = min(port + _NUM_PORTS - 1, 65535)
    for candidate in range(port, last + 1):
        if _can_listen(host, candidate):
            return candidate
    raise InputError(f"ports {port} to {last} are all in use: choose another --port")


def _can_listen(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":  # there the option takes a port from whoever listens on it
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
        return True
    except socket.gaierror as error:
        raise InputError(
            f"--host {host} is not known: give localhost, 0.0.0.0 or an address of this machine"
        ) from error
    except PermissionError as error:
        raise InputError(
            f"--port {port} may not be used without special rights: choose one of 1024 .. 65535"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise InputError(f"cannot listen on --host {host}: {error.strerror or error}") from error


def _import_viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise InputError(_NO_VISER) from error
    return viser


def _silence() -> None:
    """viser reports itself through rich's global console, and its server every visitor who does not speak its protocol;
    the command line says what a user needs."""
    import rich

    rich.get_console().quiet = True
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
