"""Stages whose entries Ray's workers make ahead: who dies, fails or is interrupted costs its task and nothing else."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from anchorsfm.api.images import described_images
from anchorsfm.cluster.connection import connected
from anchorsfm.cluster.executor import MAX_DEATHS, MAX_STORAGE_ERRORS, PER_SLOT, RayExecutor
from anchorsfm.cluster.nodes import require_same_everywhere
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.io import remote
from anchorsfm.io.images import load_image_set
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import chosen_frontend, pair_checker
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.executor import Executor
from anchorsfm.scene.images import Origin
from anchorsfm.scene.progress import SILENT, Advance, Progress, RecordingProgress
from cluster_tools import Numbers

TOTAL = 24
IMAGES = described_images(["0.jpg"], np.array([[640, 480]]))


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with connected("local", 1, Store(None), IMAGES, SILENT) as found:
        assert isinstance(found, RayExecutor)
        found.storage_pause_s = 0.01
        yield found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def _made(store: Store) -> list[int]:
    found = (store.load("numbers", str(row)) for row in range(TOTAL))
    return [-2 if arrays is None else int(arrays["number"][0]) for arrays in found]


def test_every_row_is_made_once(executor: Executor, store: Store, log: Path) -> None:
    tool, steps = Numbers(store=store, log=log), _Steps()
    executor.fill("numbers", tool.work(), TOTAL, steps)
    assert store.root is not None and _made(store) == list(range(TOTAL))
    assert [tool.attempts(row) for row in range(TOTAL)] == [1] * TOTAL
    assert sum(steps.advanced) == steps.total == TOTAL
    (share,) = executor.shares[-1:]
    assert (share.stage, share.node, share.rows) == ("numbers", socket.gethostname(), TOTAL)
    assert share.bytes_sent and share.bytes_written == sum(path.stat().st_size for path in store.root.rglob("*.*"))
    executor.fill("numbers", tool.work(), TOTAL, steps)
    assert [tool.attempts(row) for row in range(TOTAL)] == [1] * TOTAL, "nothing is made again"


def test_workers_need_no_folder_where_there_is_a_url(executor: Executor, store: Store, log: Path) -> None:
    store.remote = RemoteFolder(f"file://{log.parent}/url")
    tool = Numbers(store=store, log=log, killers={7: 1})
    executor.fill("numbers", tool.work(), TOTAL, SILENT)
    assert store.root is not None and not store.root.exists()
    assert _made(store) == list(range(TOTAL))
    assert len(list(store.root.rglob("*.safetensors"))) == TOTAL, "what was read is here from then on"


def test_a_worker_that_dies_loses_only_its_task(executor: Executor, store: Store, log: Path) -> None:
    tool, steps = Numbers(store=store, log=log, killers={7: 1}), _Steps()
    executor.fill("numbers", tool.work(), TOTAL, steps)
    assert _made(store) == list(range(TOTAL))
    assert [row for row in range(TOTAL) if tool.attempts(row) > 1] == [7], "what was saved is not made again"
    assert sum(steps.advanced) == TOTAL
    assert any("1 tasks were lost" in line for line in steps.warnings)


def test_a_row_that_kills_every_worker_is_set_aside(executor: Executor, store: Store, log: Path) -> None:
    tool, steps = Numbers(store=store, log=log, killers={TOTAL - 1: 100}), _Steps()
    executor.fill("numbers", tool.work(), TOTAL, steps)
    assert tool.attempts(TOTAL - 1) == MAX_DEATHS
    assert _made(store) == [*range(TOTAL - 1), -1]
    assert sum(steps.advanced) == TOTAL
    assert any(f"number {TOTAL - 1} is left out, because {MAX_DEATHS} workers died" in line for line in steps.warnings)
    assert Store(store.root).load("numbers", str(TOTAL - 1)) is None, "another run tries again"


def test_what_a_user_can_act_on_comes_back_as_it_is(executor: Executor, store: Store, log: Path) -> None:
    tool = Numbers(store=store, log=log, unreadable=frozenset({5}))
    with pytest.raises(InputError, match="cannot read photograph 5"):
        executor.fill("numbers", tool.work(), TOTAL, SILENT)


def test_a_disk_that_is_full_for_a_moment_is_tried_again(executor: Executor, store: Store, log: Path) -> None:
    tool = Numbers(store=store, log=log, unwritable={3: MAX_STORAGE_ERRORS - 1})
    executor.fill("numbers", tool.work(), TOTAL, SILENT)
    assert _made(store) == list(range(TOTAL))
    lasting = Numbers(store=Store(store.root / "other"), log=log, unwritable={3: 100})
    with pytest.raises(StorageError, match="no space left"):
        executor.fill("numbers", lasting.work(), TOTAL, SILENT)


def test_a_stage_that_was_stopped_goes_on(executor: Executor, store: Store, log: Path) -> None:
    tool = Numbers(store=store, log=log)
    with pytest.raises(KeyboardInterrupt):
        executor.fill("numbers", tool.work(), TOTAL, _Steps(stop_after=5))
    executor.fill("numbers", tool.work(), TOTAL, SILENT)
    assert _made(store) == list(range(TOTAL))
    done_before = range(TOTAL // PER_SLOT)  # the first task
    assert all(tool.attempts(row) == 1 for row in done_before), "only tasks that were stopped are done again"


def test_a_node_that_cannot_do_the_work_is_named(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, images = Store(tmp_path / "cache"), replace(IMAGES, root=tmp_path)
    require_same_everywhere(store, images)
    assert not list((tmp_path / "cache").iterdir())
    elsewhere = replace(images, root=Path("/nowhere/photographs"))
    with pytest.raises(InputError, match=r"node .* does not see /nowhere/photographs: put"):
        require_same_everywhere(store, elsewhere)
    (tmp_path / "bucket").mkdir()
    fetched = replace(elsewhere, origins=(Origin(folder=elsewhere.root, url=f"file://{tmp_path}/bucket"),))
    with pytest.raises(InputError, match=rf"node .* does not find in file://{tmp_path}/bucket what is there"):
        require_same_everywhere(store, fetched)
    (tmp_path / "bucket" / "0.jpg").touch()
    require_same_everywhere(store, fetched)
    store.remote = RemoteFolder(f"file://{tmp_path}/url")
    require_same_everywhere(store, images)
    store.remote = RemoteFolder("memory://only-here")
    with pytest.raises(InputError, match=r"node .* does not find in memory://only-here what is there"):
        require_same_everywhere(store, images)
    store.remote = None
    monkeypatch.setattr("anchorsfm.cluster.nodes._version", lambda: "9.9")
    with pytest.raises(InputError, match=r"this machine 9\.9: install the same everywhere"):
        require_same_everywhere(store, images)


def test_a_run_has_the_same_bits(
    executor: Executor, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = [rendered / "images" / name for name in load_image_set(rendered / "images").names[:3]]
    config = PipelineConfig(
        max_image_size=320,
        mapper="tracks",
        bundle_adjustment=False,
        classical=ClassicalFrontend(dense=DenseConfig(size=128)),
    )
    shared = replace(config, cache_url=f"file://{tmp_path}/url")
    reconstruct(photographs, tmp_path / "here", config)
    report = reconstruct(photographs, tmp_path / "there", replace(shared, ray="local")).report
    shares = {share.stage: (share.rows, share.bytes_read > 0) for share in report.cluster}
    assert shares["finding keypoints"] == (3, False) and shares["matching pairs"] == (3, True)
    here, there = (_bits(tmp_path / name) for name in ("here", "there"))
    assert here == there
    kinds = {Path(name).parent.name for name in here}
    assert kinds >= {"features", "feature-matches", "verified-matches", "classical-evidence", "classical-poses", "0"}
    assert kinds >= {"classical-dense", "dense-depth"} and shares["matching depth"] == (3, False)
    written = []
    put = remote._put
    monkeypatch.setattr(remote, "_put", lambda files, path, data: written.append(path) or put(files, path, data))
    reconstruct(photographs, tmp_path / "again", shared)
    assert _bits(tmp_path / "again") == here
    assert ["seen-" in path for path in written] == [True], "all is there, beside a look whether one may write"


def test_pair_search_and_dense_depth_have_the_same_bits(executor: Executor, rendered: Path, tmp_path: Path) -> None:
    images = load_image_set(rendered / "images").select([0, 1, 2])
    config = PipelineConfig(classical=ClassicalFrontend(dense=DenseConfig(size=128)), max_image_size=320)
    frontend, pairs = chosen_frontend(config), make_pairs(3, "complete")
    found = {}
    for name in ("here", "there"):
        steps = Store(tmp_path / name)
        if name == "there":
            steps.executor = executor
        counts = pair_checker(config, images, frontend, steps, SILENT).checker()(pairs.index)
        predictor = frontend.open(images, pairs, steps, SILENT)
        kinds = {path.parent.name for path in (tmp_path / name).rglob("*.safetensors")}
        assert ("classical-dense" in kinds) == (name == "there"), "depth is made ahead on the cluster only"
        depths = [prediction.frame_i.own for prediction in predictor if prediction.frame_i is not None]
        assert depths
        found[name] = [counts, *depths], _bits(tmp_path / name)
    for here, there in zip(found["here"][0], found["there"][0], strict=True):
        assert np.array_equal(here, there)
    assert found["here"][1] == found["there"][1]


def _bits(output: Path) -> dict[str, bytes]:
    """Models and entries of the cache, by name."""
    found = [path for path in output.rglob("*") if path.suffix in (".bin", ".safetensors")]
    assert found
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in found}


class _Steps(RecordingProgress):
    """Counts steps, and stops a stage after some."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__(Progress())
        self.advanced: list[int] = []
        self.total: int | None = None
        self._stop_after = stop_after

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        self.total = total

        def advance(steps: int) -> None:
            self.advanced.append(steps)
            if self._stop_after is not None and sum(self.advanced) >= self._stop_after:
                raise KeyboardInterrupt

        yield advance
