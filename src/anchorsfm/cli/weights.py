"""`anchorsfm weights`: what networks there are, and fetching one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.scene.settings import NotEmpty, Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Weights(Settings):
    """List known weights with licence and size, or find, download and verify some of them."""

    source: Annotated[tyro.conf.Positional[str | None], NotEmpty()] = None
    """A Hugging Face id or a local file of MASt3R or DUSt3R, the name of a listed file, or aliked, disk or xfeat for
    all that these need; nothing lists what is known."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under, where these ask for it; asked for once."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.features.learned.releases import DETECTOR_WEIGHTS, MATCHER_WEIGHTS
        from anchorsfm.frontend.mast3r.weights import KNOWN_WEIGHTS, resolve_weights
        from anchorsfm.io.weights.release import ReleaseFile, find_release, present, weights_folder

        def say(path: Path, digest: str, terms: str) -> None:
            for line in (f"file:    {path}", f"digest:  {digest}", f"licence: {terms}"):
                console.print(line)

        releases: list[ReleaseFile] = [*DETECTOR_WEIGHTS.values(), *MATCHER_WEIGHTS.values()]
        if self.source is None:
            for release in releases:
                console.print(f"{release.name}  ({release.size_bytes / 2**20:.1f} MiB)")
                console.print(f"    {release.network}")
                console.print(f"    licence: {release.terms}")
                console.print(f"    {present(release) or f'downloaded to {weights_folder()} when needed'}")
            for known in KNOWN_WEIGHTS:
                console.print(f"{known.name}  ({known.size_bytes / 2**30:.1f} GiB)")
                console.print(f"    {known.description}")
                console.print(f"    licence: {known.terms}")
            return
        wanted = [release for release in releases if release.name == self.source]
        wanted += [
            table[name] for table in (DETECTOR_WEIGHTS, MATCHER_WEIGHTS) for name in table if name == self.source
        ]
        for release in wanted:
            with show_progress(console, quiet=False) as progress:
                path = find_release(release, None, progress)
            say(path, release.sha256, release.terms)
        if not wanted:
            found = resolve_weights(self.source, accept_license=self.accept_weights_license)
            say(found.path, found.digest, found.licence.terms)
