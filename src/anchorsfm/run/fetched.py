"""Before anything else: what a run is given as URLs, fetched into OUT/fetched."""

from dataclasses import replace
from pathlib import Path

from anchorsfm.io.fetch import fetch
from anchorsfm.io.remote import url_of
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.scene.progress import Progress


def here(source: Path | list[Path]) -> list[Path]:
    """What is not at a URL."""
    return [path for path in ([source] if isinstance(source, Path) else source) if url_of(path) is None]


def with_fetched(
    source: Path | list[Path], config: PipelineConfig, folder: RunFolder, progress: Progress
) -> tuple[Path | list[Path], PipelineConfig]:
    """Folders and files here in the place of URLs, among photographs and masks; and the settings that say so.

    Raises:
        InputError: nothing is at a URL, or a file in OUT/fetched is somebody else's.
        StorageError: a URL cannot be read, or OUT cannot be written.
    """

    def local(path: Path) -> Path:
        url = url_of(path)
        if url is None:
            return path
        found = fetch(url, folder.fetched, progress)
        folder.use_fetched(found.origin)
        return found.path

    if config.masks is not None:
        config = replace(config, masks=local(config.masks))
    return (local(source) if isinstance(source, Path) else [local(path) for path in source]), config
