"""Ways to damage a file, and what a command may make of it.

`damaged_bytes` and `damaged_json` yield the cases; `Outcomes.add` runs one under a watchdog and takes down what is not
allowed: anything but a result or one line that the command line prints with exit code 2.
"""

import copy
import faulthandler
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.scene.errors import AnchorSfMError

PATIENCE_S = 60.0
NUM_CUTS, NUM_FLIPS = 20, 20
WRONG_VALUES: tuple[Any, ...] = (
    None, "text", "\ud800", "../../x", -1, 10**30, 1.5, 1e308, float("nan"), float("inf"), True, [], {}, [None], [[[]]],
)  # fmt: skip
"""Put in the place of every value of a JSON file."""
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One way in which a file is damaged."""

    name: str
    content: bytes | None
    """None: `place` makes something else than a file."""
    place: Callable[[Path], None] | None = None
    exact: bool = False
    """The damage can be told from the file's structure: whatever comes of it must be refused."""

    def apply(self, path: Path) -> None:
        remove(path)
        if self.content is not None:
            path.write_bytes(self.content)
        elif self.place is not None:
            self.place(path)


def damaged_bytes(
    content: bytes, *, seed: int = 0, exact_cuts: bool, cuts: int = NUM_CUTS, flips: int = NUM_FLIPS
) -> Iterator[Damage]:
    """Cut short, bits flipped, filled with other bytes, not a file at all.

    `exact_cuts`: the format says how long the file must be, so that a shorter or longer one must be refused.
    """
    rng = np.random.default_rng(seed)
    size = len(content)
    for at in sorted({*np.linspace(0, size - 1, cuts).astype(int).tolist(), max(size - 3, 0)}):
        yield Damage(name=f"cut at {at} of {size}", content=content[:at], exact=exact_cuts)
    for at in rng.integers(0, 8 * size, flips).tolist() if size else []:
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        yield Damage(name=f"bit {at} flipped", content=bytes(flipped))
    nan = np.array([np.nan]).tobytes()
    for at in sorted({int(k) for k in rng.integers(0, max(size - 8, 1), 4)}):
        yield Damage(name=f"NaN at {at}", content=content[:at] + nan + content[at + 8 :])
    half = size // 2
    yield Damage(name="followed by zeros", content=content + bytes(16), exact=exact_cuts)
    yield Damage(name="ends in zeros", content=content[:half] + bytes(size - half))
    yield Damage(name="ends in ones", content=content[:half] + b"\xff" * (size - half))
    yield Damage(name="begins with ones", content=b"\xff" * 8 + content[8:])
    yield Damage(name="noise", content=rng.bytes(size), exact=exact_cuts)
    yield from not_files()


def not_files() -> Iterator[Damage]:
    """What else can have the name of a file."""
    yield Damage(name="a folder", content=None, place=Path.mkdir, exact=True)
    yield Damage(name="a pipe", content=None, place=os.mkfifo, exact=True)
    yield Damage(name="a device", content=None, place=lambda path: path.symlink_to("/dev/zero"), exact=True)


def damaged_json(value: Any, *, keys: int | None = None, wrongs: int | None = None, seed: int = 0) -> Iterator[Damage]:
    """Every key missing, and with wrong values; of lists the first entry.

    `keys`: of so many keys, drawn at random. `wrongs`: with so many of the wrong values, other ones for each key.
    """
    paths = list(_paths(value, ()))
    if keys is not None and len(paths) > keys:
        paths = [paths[k] for k in np.sort(np.random.default_rng(seed).permutation(len(paths))[:keys])]
    for k, path in enumerate(paths):
        shown = ".".join(map(str, path))
        yield Damage(name=f"{shown} missing", content=_dump(_changed(value, path, _MISSING)))
        count = len(WRONG_VALUES) if wrongs is None else wrongs
        for wrong in (WRONG_VALUES[(k * count + step) % len(WRONG_VALUES)] for step in range(count)):
            yield Damage(name=f"{shown} is {wrong!r}", content=_dump(_changed(value, path, wrong)))
    yield Damage(name="nested deeply", content=b"[" * 100_000, exact=True)
    yield Damage(name="nested and closed", content=b'{"a":' * 2000 + b"1" + b"}" * 2000, exact=True)
    yield Damage(name="digits", content=b"9" * 10_000, exact=True)
    for wrong in (None, [], {}, 7, "text"):
        yield Damage(name=f"the whole is {wrong!r}", content=_dump(wrong))


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    entries = (
        value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    )
    for key, item in entries:
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _changed(value: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    """The value with something else at a place; the rest is shared."""
    if not path:
        return wrong
    changed = copy.copy(value)
    if len(path) == 1 and wrong is _MISSING:
        del changed[path[0]]
    else:
        changed[path[0]] = _changed(value[path[0]], path[1:], wrong)
    return changed


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def remove(path: Path) -> None:
    """Whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """The content of a file, which is put back in the end."""
    content = path.read_bytes()
    try:
        yield content
    finally:
        remove(path)
        path.write_bytes(content)


@dataclass
class Outcomes:
    """What came of the cases of one kind of file."""

    kind: str
    cases: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    watched_until: float = 0.0

    def add(
        self,
        case: str,
        call: Callable[[], Any],
        *,
        exact: bool = False,
        check: Callable[[Any], str | None] | None = None,
    ) -> None:
        """Run one case. `check` says what is wrong with a result; None: nothing."""
        self.cases += 1
        if time.monotonic() > self.watched_until - PATIENCE_S:  # setting the watchdog takes longer than most cases
            faulthandler.dump_traceback_later(1.2 * PATIENCE_S, exit=True)  # also where the interpreter is not asked
            self.watched_until = time.monotonic() + 1.2 * PATIENCE_S
        try:
            result = call()
        except AnchorSfMError as error:
            self.refused += 1
            if len(str(error).splitlines()) != 1 or len(str(error)) > 1000:
                self.wrong.append(f"{case}: not one line: {str(error)[:200]!r}")
            return
        except Exception as error:
            self.wrong.append(f"{case}: {type(error).__name__}: {str(error)[:200]}")
            return
        problem = "it was accepted" if exact else check(result) if check is not None else None
        if problem:
            self.wrong.append(f"{case}: {problem}")

    def require_none(self) -> None:
        """Fail with what is wrong; say how many cases there were."""
        faulthandler.cancel_dump_traceback_later()
        print(f"damage: {self.kind}: {self.cases} cases, {self.refused} refused, {len(self.wrong)} wrong")
        assert self.cases and not self.wrong, f"{len(self.wrong)} of {self.cases}:\n" + "\n".join(self.wrong[:20])
