"""The alignment where a fifth of the pairs predict a wrong relative pose that looks like any other."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.align.scene import sparse_global_alignment
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.io.store import Store
from anchorsfm.observe.graph import believed_scores, build_scene_graph
from anchorsfm.observe.relative import relative_rotation
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import consume
from anchorsfm.scene.pairs import PairList, PairStatus
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic.oracle import OracleNoise, SyntheticFrontend, image_set
from anchorsfm.synthetic.scenes import SceneConfig, make_scene

NUM, REACH = 14, 4


def room(seed):
    """Cameras all around a room."""
    return make_scene(SceneConfig(num_images=NUM, size_wh=(320, 240), arc_deg=360, seed=seed))


def angle_deg(rotation):
    return float(rotation_angle_deg(rotation[None])[0])


def around():
    return sorted({tuple(sorted((i, (i + k) % NUM))) for i in range(NUM) for k in range(1, REACH + 1)})


def scattered(scene, seed):
    """A fifth of the pairs, at most three of an image, are wrong: j is taken for k, which i sees."""
    pairs, rng = around(), np.random.default_rng(seed)
    rotation = scene.cam_from_world[:, :, :3]
    count = np.zeros(NUM, int)
    wrong = []
    for row in rng.permutation(len(pairs)).tolist():
        i, j = pairs[row]
        others = [k for k in range(NUM) if tuple(sorted((i, k))) in pairs and k != j]
        far = [k for k in others if angle_deg(rotation[j] @ rotation[k].T) > 30]
        if far and len(wrong) < 0.2 * len(pairs) and count[[i, j]].max() < 3:
            wrong.append((i, j, int(rng.choice(far))))
            count[[i, j]] += 1
    assert len(wrong) >= 0.2 * len(pairs)
    return pairs, wrong


def two_places_that_look_alike(scene, seed):
    """What images see from the other side of the room is taken for what is seen from here: a fifth more pairs."""
    half = NUM // 2
    wrong = [(a, b, b - half) for a in range(4) for b in range(half, half + 4) if b - half != a]
    return sorted({*around(), *((a, b) for a, b, _ in wrong)}), wrong


def frontend(scene, wrong, **settings):
    return SyntheticFrontend(scene=scene, grid_long_side=96, misplaced=tuple(wrong), **settings)


def rra5(results, scene):
    """Share of all pairs of images whose relative rotation is right within 5 degrees."""
    rotation = np.full((scene.num_images, 3, 3), np.nan)
    rotation[results[0].image_index] = results[0].cam_from_world[:, :, :3]
    world = np.swapaxes(scene.cam_from_world[:, :, :3], 1, 2) @ rotation
    i, j = np.triu_indices(scene.num_images, 1)
    return np.mean(rotation_angle_deg(np.swapaxes(world[i], 1, 2) @ world[j]) < 5)


@pytest.mark.parametrize(("kind", "seed"), [(scattered, 2), (two_places_that_look_alike, 0)])
def test_wrong_pairs_do_not_move_a_camera(kind, seed):
    scene = room(seed)
    pairs, wrong = kind(scene, seed)
    results = sparse_global_alignment(
        image_set(scene), PairList(index=np.array(pairs)), frontend(scene, wrong, num_keypoints=0)
    )
    assert [len(result.image_index) for result in results] == [NUM]
    assert rra5(results, scene) == 1


@pytest.fixture(scope="module")
def observed():
    scene = room(0)
    pairs, wrong = scattered(scene, 0)
    predictor = frontend(scene, wrong).open(image_set(scene), PairList(index=np.array(pairs)), Store(None), SILENT)
    return scene, wrong, predictor, build_scene_graph(NUM, iter(predictor), predictor.grid)


def test_the_graph_leaves_wrong_pairs_out_and_confirms_the_others(observed):
    _, wrong, _, scene = observed
    rejected = {tuple(pair) for pair in scene.rejected.tolist()}
    assert rejected <= {(i, j) for i, j, _ in wrong}
    assert len(rejected) >= len(wrong) - 1  # one may have too few matches to be a pair
    assert not rejected & {tuple(pair) for pair in scene.graph.pair.tolist()}
    assert scene.graph.confirmed.mean() > 0.95


def test_relative_rotations_are_those_of_the_pointmaps():
    scene = room(0)
    pairs = PairList(index=np.array([(0, 1), (0, 2)]))
    exact = frontend(scene, [(0, 2, 3)], noise=OracleNoise.none(), num_keypoints=0)
    predictor = exact.open(image_set(scene), pairs, Store(None), SILENT)
    rotation = scene.cam_from_world[:, :, :3]
    for prediction, place in zip(predictor, (1, 3), strict=True):
        found = relative_rotation(prediction)
        assert angle_deg(found.j_from_i @ rotation[0] @ rotation[place].T) < 0.01
        assert 0 < found.evidence <= len(prediction.matches)
        without = replace(prediction, frame_i=None, frame_j=None)
        assert relative_rotation(without).evidence == 0
        said = relative_rotation(replace(without, j_from_i=found.j_from_i))
        assert said.evidence == found.evidence and np.array_equal(said.j_from_i, found.j_from_i)


def test_unconfirmed_pairs_are_chained_along_only_where_nothing_else_connects(observed):
    *_, scene = observed
    graph = scene.graph
    confirmed = graph.confirmed.copy()
    confirmed[np.flatnonzero(confirmed)[::7]] = False
    doubted = type(graph)(**{**vars(graph), "confirmed": confirmed})
    scores = believed_scores(doubted)
    i, j = graph.pair.T
    assert (scores[i, j] > 0).tolist() == confirmed.tolist()
    alone = confirmed & (i != 0) & (j != 0)
    joined = believed_scores(type(graph)(**{**vars(graph), "confirmed": alone}))
    assert (joined[0] > 0).sum() == ((i == 0) | (j == 0)).sum()


@pytest.mark.parametrize("mapper", ["align", "tracks"])
def test_tracks_and_report_leave_them_out_too(observed, mapper):
    """With depth and without."""
    scene, _, predictor, graph = observed
    config = PipelineConfig(mapper=mapper, dense=False)
    assert config.needs_depth == (mapper == "align")
    pairs = PairList(index=predictor._pairs.index)
    predicted = consume(predictor, pairs, image_set(scene), config, Store(None), SILENT)
    used = set(zip(predicted.matches.image_i.tolist(), predicted.matches.image_j.tolist(), strict=True))
    rejected = {tuple(pair) for pair in graph.rejected.tolist()}
    assert rejected and not used & rejected and len(used) > 30
    columns = predicted.log.columns()
    listed = {
        (i, j)
        for i, j, status in zip(columns.i, columns.j, columns.status, strict=True)
        if columns.statuses[status] == PairStatus.CONTRADICTED
    }
    assert listed == rejected
    assert predicted.log.status[PairStatus.CONTRADICTED] == len(rejected)
    assert sum(predicted.log.status.values()) == len(pairs)
    belief = predicted.log.belief()
    assert belief["confirmed"] == graph.graph.confirmed.sum() and belief["contradicted"] == len(rejected)
    assert sum(belief.values()) == len(pairs) - predicted.log.status[PairStatus.UNMATCHED]
