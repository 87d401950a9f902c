"""Is the time that a run says it will still take true? Figures of a run beside what it then took.

    python benchmarks/forecast.py PHOTOS OUT [-- OPTION ...]

Options after `--` go to `reconstruct`. Prints the ratio of what was said to what was left, at tenths of the run.
"""

import sys
import time
from pathlib import Path

from anchorsfm.cli.parsing import parse
from anchorsfm.cli.reconstruct import Reconstruct
from anchorsfm.pipeline import reconstruct
from anchorsfm.scene.progress import Progress


class Told(Progress):
    """When how much was said to be left."""

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []

    def whole(self, left_s: float) -> None:
        self.told.append((time.monotonic(), left_s))


def main() -> None:
    arguments, options = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, options = arguments[:split], arguments[split + 1 :]
    photos, output = map(Path, arguments)
    command = parse("reconstruct", [str(photos), "--output", str(output), *options])
    assert isinstance(command, Reconstruct)
    progress, began = Told(), time.monotonic()
    reconstruct(photos, output, command.configured(), progress)
    took = time.monotonic() - began
    print(f"{photos}: {took:.0f} s")
    for tenth in range(1, 10):
        when, left = min(progress.told, key=lambda told: abs(told[0] - began - tenth / 10 * took))
        share = (when - began) / took
        print(f"after {share:4.0%}: {left:6.0f} s said, {began + took - when:6.0f} s were left", end="")
        print(f", ratio {left / (began + took - when):.2f}")


if __name__ == "__main__":
    main()
