"""What identifies a file of weights."""

import hashlib
import re
from pathlib import Path

from anchorsfm.io.weights.user_cache import read_json, user_cache, write_json


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered as long as its size and time do not change."""
    target = path.resolve()
    status = target.stat()
    stamp = [status.st_size, status.st_mtime_ns]
    record = user_cache() / "weights-digests.json"
    remembered = read_json(record)
    entry = remembered.get(str(target))
    if isinstance(entry, dict) and entry.get("stamp") == stamp and is_sha256(entry.get("sha256")):
        return str(entry["sha256"])
    with target.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    write_json(record, {**remembered, str(target): {"stamp": stamp, "sha256": value}})
    return value


def is_sha256(value: object) -> bool:
    """Whether it is the text of one."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None
