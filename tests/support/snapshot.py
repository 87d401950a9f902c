"""What lies in a folder, to compare before and after."""

from pathlib import Path


def snapshot(folder: Path, *, without: tuple[str, ...] = (".anchorsfm", "cache")) -> dict[str, bytes | str]:
    """Content of every file and target of every link below a folder, but for our own notes and the cache."""
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not set(path.relative_to(folder).parts) & set(without)
    }
