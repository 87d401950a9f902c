"""`anchorsfm weights`: what networks there are, and fetching one."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from anchorsfm.scene.settings import NotEmpty, Settings
from anchorsfm.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Weights(Settings):
    """List known weights with licence and size, or find, download and verify one of them."""

    source: Annotated[tyro.conf.Positional[str | None], NotEmpty()] = None
    """A Hugging Face id or a local file; nothing lists what is known."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under; asked for once."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.frontend.mast3r.weights import KNOWN_WEIGHTS, resolve_weights

        if self.source is None:
            for known in KNOWN_WEIGHTS:
                console.print(f"{known.name}  ({known.size_bytes / 2**30:.1f} GiB)")
                console.print(f"    {known.description}")
                console.print(f"    licence: {known.terms}")
            return
        found = resolve_weights(self.source, accept_license=self.accept_weights_license)
        for line in (f"file:    {found.path}", f"digest:  {found.digest}", f"licence: {found.licence.terms}"):
            console.print(line)
