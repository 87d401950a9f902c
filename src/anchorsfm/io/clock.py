"""Wall time, CPU time and peak memory of the stages of a run."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anchorsfm.io.memory import amount_asked, give_back_freed, is_out_of_memory
from anchorsfm.scene.errors import OutOfMemoryError


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """Cost of one stage of a run."""

    stage: str
    wall_s: float
    cpu_s: float
    """User and system time of all threads of this process."""
    peak_memory_mib: float
    """Largest resident size during the stage (of the run so far where the system cannot reset its mark)."""


class StageClock:
    """Collects one `StageTiming` per `with clock.stage(name)`."""

    def __init__(self, lowers_memory: Mapping[str, Sequence[str]] | None = None) -> None:
        """lowers_memory: the settings, by stage, that lower how much memory it needs."""
        self.timings: list[StageTiming] = []
        self._lowers_memory = lowers_memory or {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; its figures are kept when it ends without an error. Memory that it freed goes to the system.

        Raises OutOfMemoryError in the place of whatever a library raises when memory runs out.
        """
        name = str(name)  # the plain text of a member of an enumeration
        _reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            asked = amount_asked(error)
            need = f"{peak_memory_mib():.0f} MiB in use" + (f", {asked} more were asked for" if asked else "")
            raise OutOfMemoryError(name, need, tuple(self._lowers_memory.get(name, ()))) from error
        self.timings.append(
            StageTiming(
                stage=name,
                wall_s=round(time.perf_counter() - wall, 3),
                cpu_s=round(time.process_time() - cpu, 3),
                peak_memory_mib=round(peak_memory_mib(), 1),
            )
        )
        give_back_freed()


def _reset_peak() -> None:
    """Linux: lower the high-water mark of resident memory to the present size."""
    with suppress(OSError):  # other systems: the mark of the whole run is what there is
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """High-water mark of resident memory since it was last reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
