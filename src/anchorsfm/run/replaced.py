"""What a run takes away when its result replaces an earlier one in the same folder."""

from pathlib import Path

from anchorsfm.results.record import Extension
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.errors import InputError


def undone(output: Path) -> list[str]:
    """What other commands did to the result in a folder and a new result will lack, a line each.

    Nothing is said of a folder without a result, or with one that cannot be read.
    """
    stored, lines = StoredRun(output), []
    if not stored.has_report:
        return []
    try:
        entries = stored.report["extensions"]
    except InputError:
        return []
    for extension in map(Extension.of, entries):
        what = "extended" if extension.command == "extend" else "merged"
        lines.append(
            f"{output} was {what} by {extension.added} photographs ({', '.join(extension.sources)}): the new result is "
            f"without them until the same anchorsfm {extension.command} is run again; stop now to keep the former one"
        )
    if stored.layout.transform.exists():
        lines.append(
            f"{output} was changed by anchorsfm transform (transform.json): the new result is in the frame before "
            "that, and exports have to be made again; stop now to keep the former one"
        )
    return lines
