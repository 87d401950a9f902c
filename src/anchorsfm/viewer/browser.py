"""What only a browser can do: move its camera, render what it sees."""

from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from anchorsfm.viewer.frame import Viewpoint

BACKGROUND = (20, 20, 20)
"""Of the page where the system's colours are dark."""
_PATIENCE_S = 30.0


def face(client: Any, place: Viewpoint) -> None:
    """Move a browser's camera."""
    with client.atomic():
        client.camera.up_direction = place.up
        client.camera.position = place.position
        client.camera.look_at = place.look_at
        client.camera.fov = place.fov


def save_screenshot(client: Any) -> None:
    """Have a browser render its view without the controls and save it."""
    if client is None:
        return
    camera = client.camera
    try:
        rendered = client.get_render(
            camera.image_height, camera.image_width, transport_format="png", timeout=_PATIENCE_S
        )
    except (RuntimeError, TimeoutError) as error:
        client.add_notification("Screenshot", f"the browser gave no picture: {error}", color="red")
        return
    file = BytesIO()
    Image.fromarray(on_background(rendered)).save(file, "PNG")
    client.send_file_download("anchorsfm.png", file.getvalue(), save_immediately=True)


def on_background(rendered: UInt8[np.ndarray, "h w channel"]) -> UInt8[np.ndarray, "h w 3"]:
    """A rendering (h, w, 3 or 4), (h, w, 3) uint8: in front of `BACKGROUND` where the page has not painted its own."""
    if rendered.shape[2] == 3:
        return rendered
    alpha = rendered[:, :, 3:].astype(float) / 255
    return np.round(alpha * rendered[:, :, :3] + (1 - alpha) * np.array(BACKGROUND)).astype(np.uint8)
