"""The network in workers: same bits, every image encoded once among them, and nothing left behind."""

import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_mast3r_frontend import assert_same_bits, one_thread, open_frontend, write_photos

from anchorsfm.frontend.mast3r import predictor as predictor_module
from anchorsfm.frontend.mast3r.ahead import KIND
from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.io.store import Store
from anchorsfm.networks.mast3r import PairNetwork
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.executor import Executor, Work
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress
from tiny_network import MAST3R, write_weights

__all__ = ["one_thread"]  # for all tests here


PAIRS = PairList(index=np.array([(0, 2), (0, 3), (2, 3)]))
"""Of photographs that the network sees in one size: a group of two and one of one."""


class TwoWorkers(Executor):
    """Each gets every other row, as Ray's workers do: the tool comes to them pickled and stays."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        todo = [row for row in range(total) if not work.is_done(row)]
        self.rows[description] = self.rows.get(description, 0) + len(todo)
        for mine in (todo[::2], todo[1::2]):
            pickle.loads(pickle.dumps(work.tool))(work.part(mine))


class SetsAside(Executor):
    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        work.set_aside(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "four")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "mast3r", MAST3R)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What networks are asked for, in any process."""
    made: list[str] = []

    def counted(name: str, do: Any) -> Any:
        return lambda *args: made.append(name) or do(*args)

    for name in ("encode", "predict_symmetric"):
        monkeypatch.setattr(PairNetwork, name, counted(name, getattr(PairNetwork, name)))
    return made


def _opened(photos: Path, weights: str, store: Store) -> Mast3rPredictor:
    return open_frontend(photos, weights, PAIRS, store, batch_size=2)


def test_same_bits_and_images_are_encoded_once(
    photos: Path, weights: str, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "PAIRS_AHEAD", 1)
    monkeypatch.setattr(predictor_module, "_GROUPS_PER_WINDOW", 1)  # several turns
    expected = list(_opened(photos, weights, Store(tmp_path / "here")))
    calls.clear()
    store = Store(tmp_path / "there")
    store.remote = RemoteFolder(f"memory://{tmp_path.name}")
    store.executor = executor = TwoWorkers()
    predictor = _opened(photos, weights, store)
    found = []
    for row, prediction in enumerate(predictor):
        found.append(prediction)
        assert len(store.remote.names(KIND)) == 1, f"only some wait at row {row}"
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)
    assert calls.count("encode") == executor.rows["encoding images"] == 3
    assert calls.count("predict_symmetric") == executor.rows["predicting pairs"] == 2
    assert "network" not in vars(predictor), "this process does not even load it"
    del predictor
    left = [*(tmp_path / "there").rglob("*.safetensors"), *(p for p in MemoryFileSystem.store if tmp_path.name in p)]
    assert not left


def test_what_was_made_ahead_serves_a_run_that_continues(
    photos: Path, weights: str, tmp_path: Path, calls: list[str]
) -> None:
    store = Store(tmp_path)
    store.executor = TwoWorkers()
    stream = iter(_opened(photos, weights, store))
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert len(list((tmp_path / KIND).iterdir())) == 2, "neither group was taken in as a whole"
    calls.clear()
    again = list(islice(_opened(photos, weights, Store(tmp_path)), len(PAIRS)))
    assert len(again) == len(PAIRS) and not calls
    assert_same_bits(again[0], first)
    assert not list((tmp_path / KIND).iterdir()), "whoever takes all need not ask for more"


def test_too_little_memory_in_workers_is_one_line(photos: Path, weights: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.executor = SetsAside()
    with pytest.raises(InputError, match=r"a\.png: the workers .* died of it"):
        list(_opened(photos, weights, store))


def test_a_worker_without_the_weights_says_so(photos: Path, weights: str, tmp_path: Path) -> None:
    link = tmp_path / "linked.safetensors"
    link.symlink_to(weights)
    (tmp_path / "config.json").write_text((Path(weights).parent / "config.json").read_text())
    sent = pickle.dumps(_opened(photos, str(link), Store(tmp_path / "cache")))
    assert np.array_equal(pickle.loads(sent).grid.size_wh, _opened(photos, weights, Store(None)).grid.size_wh)
    link.unlink()
    with pytest.raises(InputError, match=r"there are no weights .*linked\.safetensors: put"):
        pickle.loads(sent)
