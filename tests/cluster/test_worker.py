"""What is sent to workers, what they make of it, and what comes of their deaths: without a cluster."""

import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

pytest.importorskip("ray", reason="Ray is not installed")

import ray

from anchorsfm.cluster import executor as module
from anchorsfm.cluster.executor import MAX_DEATHS, MAX_STORAGE_ERRORS, RayExecutor, _Stage, _Task
from anchorsfm.cluster.rows import Rows
from anchorsfm.cluster.worker import work
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig, NetworkConfig
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.store import FeatureStore, FindFeatures, MatchPairs, MatchStore
from anchorsfm.io import remote
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.images import Origin
from anchorsfm.scene.progress import SILENT
from cluster_tools import Numbers


class Reference:
    """To what is sent."""

    def __init__(self, tool: Any) -> None:
        self.content = ray.cloudpickle.dumps(tool)

    def hex(self) -> str:
        return str(id(self))


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda reference: reference.content)
    monkeypatch.setattr("anchorsfm.cluster.worker._node_id", lambda: "")


def _matches(images: Path, store: Store, weights: Path) -> MatchStore:
    config, networks = FeatureConfig(detector="xfeat", max_image_size=160), NetworkConfig(weights=weights, device="cpu")
    features = FeatureStore(
        images=load_image_set(images).select([0, 1]), detector=make_detector(config, networks), store=store
    )
    return MatchStore(features=features, matcher=make_matcher(DescriptorMatchingConfig(), "xfeat", networks))


def test_networks_run_in_a_worker_of_another_folder(
    rendered: Path, learned_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, target in (("photographs", rendered / "images"), ("weights", learned_weights)):
        (tmp_path / name).symlink_to(target.absolute())
    monkeypatch.chdir(tmp_path)
    here, there = (_matches(Path("photographs"), Store(Path(name)), Path("weights")) for name in ("here", "there"))
    expected = here.matches(0, 1)
    sent = [Reference(FindFeatures(features=there.features)), Reference(MatchPairs(matches=there))]
    monkeypatch.chdir(tmp_path.parent)
    assert work([sent[0]], pickle.dumps([0, 1])).warnings == ()
    done = work([sent[1]], pickle.dumps(np.array([[0, 1]])))
    monkeypatch.chdir(tmp_path)
    assert there.features.store.has("features", there.features.key(1))
    store = there.features.store.root
    assert store is not None and done.node == socket.gethostname()
    sizes = {path.parent.name: 0 for path in store.rglob("*.safetensors")}
    for path in store.rglob("*.safetensors"):
        sizes[path.parent.name] += path.stat().st_size
    assert (done.bytes_read, done.bytes_written) == (sizes["features"], sizes["feature-matches"])
    stored = there.features.store.load("feature-matches", there.key(0, 1))
    assert stored is not None and np.array_equal(stored["keypoint"], expected.keypoint) and len(expected.keypoint)


def test_the_device_and_not_the_wish_is_sent(learned_weights: Path) -> None:
    """On a machine with another best one, results would have other bits, or other keys."""
    for made in (
        make_detector(FeatureConfig(detector="xfeat"), NetworkConfig(weights=learned_weights)),
        make_matcher(DescriptorMatchingConfig(), "xfeat", NetworkConfig(weights=learned_weights)),
    ):
        (networks,) = (part for part in made.__reduce__()[1] if isinstance(part, NetworkConfig))
        assert networks.device == made._device.type != "auto"
        assert pickle.loads(pickle.dumps(made)).digest == made.digest


def test_a_machine_without_the_weights_is_named(rendered: Path, learned_weights: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.symlink_to(learned_weights.absolute())
    sent = Reference(FindFeatures(features=_matches(rendered / "images", Store(tmp_path), weights).features))
    weights.unlink()
    done = work([sent], pickle.dumps([0]))
    with pytest.raises(InputError, match=rf"^{done.node}: there is no .* in {weights}"):
        done.require_success()


@pytest.mark.parametrize("num_faults", [1, len(remote.PAUSES_S) + 1])
def test_a_photograph_at_a_url_is_asked_for_again(
    num_faults: int, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = LocalFileSystem.cat_file

    def cat_file(files: LocalFileSystem, path: str, **kwargs: Any) -> bytes:
        asked.append(Path(path).name)
        if len(asked) <= num_faults:
            raise ConnectionResetError("Connection reset by peer")
        data: bytes = read(files, path, **kwargs)
        return data

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,) * len(remote.PAUSES_S))
    here = load_image_set(rendered / "images").select([0])
    nowhere, url = tmp_path / "nowhere", f"file://{tmp_path}/bucket"
    (tmp_path / "bucket").symlink_to((rendered / "images").absolute())
    images = replace(here, root=nowhere, origins=(Origin(folder=nowhere, url=url),))
    detector = make_detector(FeatureConfig(max_image_size=160), NetworkConfig())
    found = FeatureStore(images=images, detector=detector, store=Store(tmp_path / "cache"))
    done = work([Reference(FindFeatures(features=found))], pickle.dumps([0]))
    assert found.store.has("features", found.key(0)) == (num_faults == 1)
    if num_faults == 1:
        done.require_success()
    else:
        with pytest.raises(StorageError, match=rf"^{done.node}: cannot read {url}/.* \(Connection reset .* 4 times\)"):
            done.require_success()
    assert asked == [here.names[0]] * min(num_faults + 1, len(remote.PAUSES_S) + 1)


def test_workers_load_only_what_they_need() -> None:
    """Each of them does, before its first entry."""
    program = (
        "import sys\n"
        "from anchorsfm.cluster import worker\n"
        "from anchorsfm.features import sift, store\n"
        "from anchorsfm.frontend.classical import tools\n"
        "print({'torch', 'pycolmap', 'viser', 'scipy.optimize', 'scipy.spatial', 'scipy.special'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_damaged_entry_that_a_worker_meets_is_told_once(tmp_path: Path) -> None:
    tool = Numbers(store=Store(tmp_path / "cache"), log=tmp_path)
    (tmp_path / "cache" / "numbers" / "1.safetensors").mkdir(parents=True)
    sent = Reference(tool)
    assert len(work([sent], pickle.dumps([1])).warnings) == 1
    assert work([sent], pickle.dumps([1])).warnings == ()


def test_only_deaths_of_a_row_by_itself_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines may go at any time: what was in a task with a killer is not suspected for that."""
    monkeypatch.setattr(_Stage, "_slots", lambda stage: {"node": 1})
    stage = _Stage(Numbers(store=Store(tmp_path / "cache"), log=tmp_path).work(), [], "CPU")
    stage._lost([0, 1, 2, 3])
    stage._lost(stage.rows.again.popleft())
    assert list(stage.rows.again) == [[2, 3], [0], [1]]
    assert [stage._lost([0]) for _ in range(MAX_DEATHS)] == [[]] * (MAX_DEATHS - 1) + [[0]]
    assert stage.aside == [0]
    assert stage._lost([1]) == [] and stage.aside == [0]


def test_errors_of_a_full_disk_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tasks that are on their way fail together, however short it was full."""
    monkeypatch.setattr(_Stage, "_slots", lambda stage: {"node": 4})
    stage = _Stage(Numbers(store=Store(tmp_path / "cache"), log=tmp_path).work(), [], "CPU")
    for errors_before in range(MAX_STORAGE_ERRORS - 1):
        assert stage.storage_errors == errors_before
        tasks = [_Task([row], "node", storage_errors=errors_before) for row in range(2 * 4)]
        assert all(stage._forgives(task, 0.0) for task in tasks)
        assert [stage.rows.again.popleft() for _ in tasks] == [task.rows for task in tasks]
    assert not stage._forgives(_Task([0], "node", storage_errors=MAX_STORAGE_ERRORS - 1), 0.0)


def test_a_cluster_without_processors_or_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"memory": 1.0}}])
    monkeypatch.setattr(module, "_NO_PROCESSOR_S", 0.0)
    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    monkeypatch.setattr(ray, "put", lambda value: value)
    tool = Numbers(store=Store(tmp_path / "cache"), log=tmp_path)
    with pytest.raises(StorageError, match="no processors left: start nodes and run again"):
        RayExecutor().fill("numbers", tool.work(), 3, SILENT)
    with pytest.raises(InputError, match="no node of the Ray cluster has a GPU: choose device cpu"):
        RayExecutor().fill("numbers", module.Work(**{**vars(tool.work()), "needs_gpu": True}), 3, SILENT)


def test_neighbouring_rows_go_to_the_same_node() -> None:
    rows = Rows(range(30), {"a": 2, "b": 1})
    assert rows.take("a", 8) == list(range(8)) and rows.take("b", 4) == [20, 21, 22, 23]
    assert rows.take("b", 100) == [*range(24, 30)]
    assert rows.take("b", 3) == [14, 15, 16], "its own are done: the second half of another's"
    assert rows.take("new", 2) == [11, 12], "a node that came later"
    rows.again.append([5])
    assert rows.take("a", 4) == [5] and len(rows) == 30 - 8 - 4 - 6 - 3 - 2
    rest = [rows.take(node, 2) for node in ("a", "b", "new") * 6]
    assert (
        sorted(row for part in rest for row in part) == [8, 9, 10, 13, 17, 18, 19]
        and not len(rows)
        and rows.take("a", 1) == []
    )
