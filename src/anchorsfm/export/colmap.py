"""COLMAP models, binary and text, with rigs and frames as COLMAP 4 writes them.

In text files a name ends at the first space, in COLMAP's reader as in others: such names are changed, and `names.json`
says how.
"""

from pathlib import Path

from anchorsfm.colmap.write import write_model
from anchorsfm.export.names import without_spaces
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.progress import Progress

NAMES = "names.json"


def export_binary(entry: StoredModel, folder: Path) -> None:
    """Write cameras.bin, images.bin, points3D.bin, rigs.bin and frames.bin; raises StorageError."""
    write_model(folder, entry.model, entry.names)


def export_text(entry: StoredModel, folder: Path, progress: Progress) -> None:
    """Write cameras.txt, images.txt, points3D.txt, rigs.txt and frames.txt; raises StorageError."""
    names = without_spaces(entry.names)
    changed = {new: old for new, old in zip(names, entry.names, strict=True) if new != old}
    write_model(folder, entry.model, names, text=True)
    if changed:
        write_atomic(folder / NAMES, to_json(changed))
        progress.warn(
            f"COLMAP's text format has no names with spaces: {len(changed)} were changed, see {NAMES} beside them "
            "(colmap-binary keeps them)"
        )
