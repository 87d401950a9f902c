"""The page that a browser gets: viser's, with a title and a script of ours.

viser's page is dark or light as the server says, for everyone alike, has one title, and pictures in its panels stay
small. The script (`assets/page.js`) lets the page and its screenshots follow the system's colours, opens pictures large
and folds the controls away on a phone. It sends nothing, and what the guard lets in is the same with it.
"""

from html import escape
from importlib.resources import files
from pathlib import Path

from anchorsfm.scene.printable import printable

_TITLE = b"<title>Viser</title>"


def dressed(page: bytes, title: str) -> bytes:
    """viser's page with this title and our script; as it is, should viser's page have changed."""
    script = (files("anchorsfm.viewer") / "assets" / "page.js").read_text(encoding="utf-8")
    ours = f"<title>{escape(title)}</title><script>{script}</script>"
    return page.replace(_TITLE, ours.encode(), 1)


def title_of(folder: Path) -> str:
    """What tells the windows of several viewers apart."""
    return f"{printable(folder.resolve().name)} – AnchorSfM"
