"""A run on a Ray cluster of three nodes, separate processes of this machine, beside the same run in one process.

    OMP_NUM_THREADS=1 python benchmarks/cluster.py [--nodes 2 --threads 2] [--at-once] same PHOTOS WORK [-- OPTIONS]
    OMP_NUM_THREADS=1 python benchmarks/cluster.py faults PHOTOS WORK [-- OPTIONS]
    OMP_NUM_THREADS=1 python benchmarks/cluster.py disk PHOTOS WORK [-- OPTIONS]
    OMP_NUM_THREADS=1 python benchmarks/cluster.py store-faults PHOTOS WORK [-- OPTIONS]
    OMP_NUM_THREADS=1 python benchmarks/cluster.py [--at-once] speed PHOTOS WORK [-- OPTIONS]
    OMP_NUM_THREADS=1 python benchmarks/cluster.py store
    OMP_NUM_THREADS=1 python benchmarks/cluster.py idle

`same`: are models and cache equal bit for bit, and what does each cost. CPU seconds are of all processes, by kind;
beside them, what a worker's libraries cost to load, by themselves. `--nodes` and `--threads` for equal cores.
`faults`: a node is killed while pairs are matched, the command while depth is computed; then the command is run again.
Its result is compared with that of a run in one process in WORK/process-1, made if it is not there. OPTIONS are those
of `anchorsfm reconstruct`; without any, `--no-dense --no-adjust`.
`disk`: the disk is full for a moment, then for good, then there is room again (root only: it mounts a small one).
`store-faults`: the store is an S3 server of this machine that is slow and fails every now and then.
`speed`: two threads of one process against two nodes of one processor each, on a machine with nothing else to do; or
with `--at-once` side by side, so that whatever else it does slows both alike.
`store`: two processes at once write and read 1,000 entries at an S3 server of this machine (moto).
`idle`: what Ray's own processes cost when nothing is asked of them.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

from anchorsfm.cluster.connection import QUIET

NODES = 3
ENTRIES = 1000
_EVERY_S = 0.25
_SETTLED_S = 15.0
_IDLE_S = 60.0
_ROOM_MIB = 512
"""Of the small disk."""
_FAILS, _SLOW_S = 0.05, 0.1
"""How often a request to the faulty store fails, and how long each takes longer."""


class Costs:
    """CPU seconds by kind, as far as processes were seen alive: of all that this one has started.

    `root`: of that process and what it has started instead; `without`: of all but those.
    """

    def __init__(self, root: int | None = None, without: int | None = None) -> None:
        self._root, self._without = root, without
        self._seconds: dict[tuple[int, float], tuple[str, float]] = {}
        self._peak_mib: dict[str, float] = {}
        self.look()
        self._before = {} if root else {process: seconds for process, (_, seconds) in self._seconds.items()}

    def look(self) -> None:
        for process in self._processes():
            try:
                key, times = (process.pid, process.create_time()), process.cpu_times()
                words = process.cmdline()
                kind = _kind(words) if words else self._seconds[key][0]  # one that has ended has no name
                self._seconds[key] = kind, times.user + times.system
                self._peak_mib[kind] = max(self._peak_mib.get(kind, 0), process.memory_info().rss / 2**20)
            except (psutil.Error, KeyError):
                continue

    def _processes(self) -> list[psutil.Process]:
        if self._root is not None:
            return _family(self._root)
        left_out = [] if self._without is None else _family(self._without)
        return [process for process in psutil.Process().children(recursive=True) if process not in left_out]

    def __str__(self) -> str:
        total: dict[str, float] = {}
        for process, (kind, seconds) in self._seconds.items():
            total[kind] = total.get(kind, 0) + seconds - self._before.get(process, 0)
        parts = [f"{kind} {seconds:.1f} s (largest {self._peak_mib[kind]:.0f} MiB)" for kind, seconds in total.items()]
        return f"CPU {sum(total.values()):.1f} s: {', '.join(sorted(parts))}"


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:  # it has ended
        return []


def _kind(words: Sequence[str]) -> str:
    line = " ".join(words)
    if "anchorsfm.cli" in line:
        return "command"
    is_worker = any(word.endswith("default_worker.py") for word in words)
    return "workers" if is_worker or (line.startswith("ray::") and "Agent" not in line) else "Ray's own processes"


class Cluster:
    """Nodes of one processor each, beside a head without any."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        # Ray's workers give way to whatever else there is, with niceness 15
        os.environ.update({**QUIET, "RAY_worker_niceness": "0"})
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        begin, costs = time.monotonic(), Costs()
        memory = 80 * 2**20
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False},
        )
        self.nodes = [self._cluster.add_node(num_cpus=1, object_store_memory=memory) for _ in range(num_nodes)]
        self.address = self._cluster.address
        print(f"cluster of {num_nodes} nodes: started in {time.monotonic() - begin:.1f} s")
        time.sleep(_SETTLED_S)  # agents of nodes start later than these; their cost is the start's
        costs.look()
        print(f"start of the cluster: {costs}")

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    def kill_node(self, number: int) -> None:
        """Its raylet by SIGKILL, with which its workers die."""
        (raylet,) = self.nodes[number].all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("same", "faults", "disk", "store-faults", "speed", "store", "idle"))
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("options", nargs="*", default=["--no-dense", "--no-adjust"])
    parser.add_argument("--nodes", type=int, help=f"of one processor each (default: {NODES}; speed: 2)")
    parser.add_argument("--threads", type=int, help="of the run in one process (default: 1; speed: 2)")
    parser.add_argument("--at-once", action="store_true", help="same and speed: both runs side by side")
    args = parser.parse_args()
    if args.what in ("store", "idle"):
        _at_once() if args.what == "store" else _idle()
        return
    if args.work is None:
        parser.error("PHOTOS and WORK are needed")
    is_speed = args.what == "speed"
    num_nodes, threads = args.nodes or (2 if is_speed else NODES), args.threads or (2 if is_speed else 1)
    here, there = args.work / f"process-{threads}", args.work / f"cluster-{args.what}"
    if not args.at_once and (args.what in ("same", "speed") or not here.exists()):
        _fresh(here)
        print("one process:", _run(args.photos, here, args.options, threads=threads))
    _fresh(there)
    print(f"a worker loads libraries in {_libraries_s():.1f} CPU s")
    # nodes are started with the keys of the server
    with _s3(_Faulty) if args.what == "store-faults" else nullcontext("") as url, Cluster(num_nodes) as cluster:
        options = [*args.options, "--ray", cluster.address]
        if args.what == "faults":
            _faults(args.photos, there, options, cluster)
        elif args.what == "disk":
            with _small_disk(there) as disk:
                _full_disk(args.photos, disk / "out", options, disk / "other")
                _compare(here, disk / "out")
            return
        elif args.what == "store-faults":
            print("cluster:", _run(args.photos, there, [*options, "--cache-url", url]))
            print(f"requests that failed: {_Faulty.failed} of {_Faulty.asked}")
        else:
            with _beside(args.photos, here, args.options, threads) if args.at_once else nullcontext() as other:
                print("cluster:", _run(args.photos, there, options, without=other))
    _compare(here, there)


@contextmanager
def _beside(photos: Path, out: Path, options: Sequence[str], threads: int) -> Iterator[int]:
    """A run in one process, of which the number is given, meanwhile."""
    _fresh(out)
    process = _started(photos, out, options, threads)
    watch = threading.Thread(target=lambda: print("one process:", _watched(process, out, Costs(process.pid))))
    watch.start()
    yield process.pid
    watch.join()


def _libraries_s() -> float:
    """CPU seconds in which a process loads what a worker does."""
    before = os.times()
    subprocess.run([sys.executable, "-c", _LIBRARIES], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


_LIBRARIES = """
import ray
from anchorsfm.cluster import worker
from anchorsfm.features import ratio_test, sift, store
from anchorsfm.frontend.classical import tools
"""


def _idle() -> None:
    with Cluster(NODES):
        costs = Costs()
        time.sleep(_IDLE_S)
        costs.look()
        print(f"{_IDLE_S:.0f} s with nothing to do: {costs}")


def _faults(photos: Path, out: Path, options: Sequence[str], cluster: Cluster) -> None:
    def kill(process: "subprocess.Popen[str]") -> bool:
        if _count(out, "feature-matches") >= 10 and not killed:
            cluster.kill_node(1)
            killed.append(f"a node after {_count(out, 'feature-matches')} pairs were matched")
        if killed and _count(out, "classical-dense") >= 3:
            process.kill()
            killed.append(f"the command after {_count(out, 'classical-dense')} pairs had depth")
            return True
        return False

    killed: list[str] = []
    print("first:", _run(photos, out, options, kill))
    print("killed:", "; ".join(killed))
    before = {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*.safetensors")}
    print("again:", _run(photos, out, options))
    kept = sum(path.stat().st_mtime_ns == when for path, when in before.items())
    print(f"entries of the first run that the second used as they were: {kept} of {len(before)}")


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM_MIB}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _full_disk(photos: Path, out: Path, options: Sequence[str], other: Path) -> None:
    """`other`: a file of somebody else on the same disk."""

    def fill(process: "subprocess.Popen[str]") -> bool:
        if _count(out, "feature-matches") < 10:
            return False
        with other.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(2**16))
        if lasting:
            return True
        time.sleep(3)
        other.unlink()
        return True

    for lasting in (False, True):
        print("full for good:" if lasting else "full for 3 s:", _run(photos, out, options, fill))
        other.unlink(missing_ok=True)
        if not lasting:
            shutil.rmtree(out / "cache" / "feature-matches")
    print("with room again:", _run(photos, out, options))


class _Faulty:
    """Passes requests on to a server, late, and fails some of them."""

    asked = failed = 0

    def __init__(self, server: "Callable[..., Iterable[bytes]]") -> None:
        self._server, self._chance = server, random.Random(0)

    def __call__(self, request: dict[str, object], answer: "Callable[..., object]") -> "Iterable[bytes]":
        time.sleep(_SLOW_S)
        _Faulty.asked += 1
        if self._chance.random() < _FAILS:
            _Faulty.failed += 1
            answer("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._server(request, answer)


@contextmanager
def _s3(around: "Callable[..., Any]" = lambda server: server) -> Iterator[str]:
    """A folder at an S3 server of this machine, whose address the environment gives."""
    import fsspec
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bare = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, around(bare), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}")
    fsspec.filesystem("s3").mkdir("cache")
    try:
        yield "s3://cache/runs"
    finally:
        server.shutdown()


def _at_once() -> None:
    """Every process makes all entries, in an order of its own, and reads others meanwhile."""
    import numpy as np

    from anchorsfm.io.remote import RemoteFolder
    from anchorsfm.io.store import Store

    with _s3() as url:
        begin = time.monotonic()
        processes = [subprocess.Popen([sys.executable, "-c", _WRITER, str(own), str(ENTRIES)]) for own in range(2)]
        codes = [process.wait() for process in processes]
        store = Store(None)
        store.remote = RemoteFolder(url)
        names = store.remote.names("numbers")
        found = [store.load("numbers", str(number)) for number in range(ENTRIES)]
    whole = sum(
        arrays is not None and np.array_equal(arrays["number"], np.full(50, number))
        for number, arrays in enumerate(found)
    )
    print(f"exit codes {codes} (1: a torn entry was read), {time.monotonic() - begin:.0f} s")
    print(f"{whole} of {ENTRIES} entries whole, {len(names)} objects")


_WRITER = """
import sys
import numpy as np
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.io.store import Store
from anchorsfm.scene.progress import SILENT, RecordingProgress

own, count = int(sys.argv[1]), int(sys.argv[2])
store = Store(None, RecordingProgress(SILENT))
store.remote = RemoteFolder("s3://cache/runs")
for number in np.random.default_rng(own).permutation(count).tolist():
    store.save("numbers", str(number), {"number": np.full(50, number)})
    other = (number * 7 + own) % count
    found = store.load("numbers", str(other))
    if store.progress.warnings or found is not None and not np.array_equal(found["number"], np.full(50, other)):
        sys.exit(1)
"""


def _run(
    photos: Path,
    out: Path,
    options: Sequence[str],
    look: "Callable[[subprocess.Popen[str]], bool] | None" = None,
    threads: int = 1,
    without: int | None = None,
) -> str:
    costs = Costs(without=without)
    return _watched(_started(photos, out, options, threads), out, costs, look)


def _started(photos: Path, out: Path, options: Sequence[str], threads: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "anchorsfm.cli", "reconstruct", str(photos), "-o", str(out), *options]
    return subprocess.Popen(
        [*command, "--classical.workers.num-workers", str(threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _watched(
    process: "subprocess.Popen[str]",
    out: Path,
    costs: Costs,
    look: "Callable[[subprocess.Popen[str]], bool] | None" = None,
) -> str:
    begin = time.monotonic()
    while process.poll() is None:
        costs.look()
        if look is not None and look(process):
            look = None
        time.sleep(_EVERY_S)
    wall_s, load = time.monotonic() - begin, os.getloadavg()[1]
    said = process.communicate()[0]
    report = out / "report.json"
    if process.returncode == 2 or (process.returncode and look):
        print(said)
    lines = []
    found = json.loads(report.read_text()) if report.exists() and not process.returncode else {}
    for line in found.get("warnings", ()):
        lines.append(f"warning: {line}")
    for stage in found.get("stages", ()):
        lines.append(f"{stage['stage']}: {stage['wall_s']:.1f} s, {stage['cpu_s']:.1f} CPU s of the command")
    for share in found.get("cluster", ()):
        each = ", ".join(
            f"{share[f'bytes_{what}'] / share['rows'] / 1000:.1f} {what}" for what in ("sent", "read", "written")
        )
        lines.append(f"{share['stage']}: {share['rows']} rows on {share['node']}; kB a row: {each}")
    lines.insert(0, f"exit code {process.returncode}, wall {wall_s:.0f} s at a load of {load:.1f}, {costs}")
    return "\n  ".join(lines)


def _compare(here: Path, there: Path) -> None:
    for what, pattern in (("models", "sparse/*/*.bin"), ("entries of the cache", "cache/*/*.safetensors")):
        found = [{path.relative_to(out): _digest(path) for path in out.glob(pattern)} for out in (here, there)]
        size_mib = sum(path.stat().st_size for path in there.glob(pattern)) / 2**20
        equal = sum(found[1].get(name) == digest for name, digest in found[0].items())
        print(f"{what}: {equal} of {len(found[0])} equal, {len(found[1])} on the cluster ({size_mib:.1f} MiB)")


def _count(out: Path, kind: str) -> int:
    return len(list((out / "cache" / kind).glob("*.safetensors")))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fresh(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
