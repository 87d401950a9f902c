"""Groups of things that links connect."""

import numpy as np

from anchorsfm.geometry.links import connected_groups


def test_links_connect_through_others_and_lone_nodes_stay_alone():
    group = connected_groups(6, np.array([[0, 2], [4, 2], [1, 5]]))
    assert group[0] == group[2] == group[4] and group[1] == group[5]
    assert len(np.unique(group)) == 3 and group.max() == 2


def test_a_link_that_comes_hundreds_of_times_is_one():
    assert connected_groups(2, np.tile([0, 1], (256, 1))).tolist() == [0, 0]


def test_no_links():
    assert connected_groups(3, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2]
    assert len(connected_groups(0, np.zeros((0, 2), np.int64))) == 0
