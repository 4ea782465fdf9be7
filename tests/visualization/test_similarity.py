"""Positives and negatives are the pairs they should be."""

import numpy as np
import pytest
from matplotlib.image import imread

from simclr_mm.errors import UserError
from simclr_mm.visualization.similarity import pair_similarities, plot_similarities, separation


@pytest.mark.parametrize('views', [2, 3])
def test_pairs_one_by_one(views):
    features = np.random.default_rng(0).normal(size=(4, views, 5)).astype(np.float32)
    positives, negatives = [], []
    for i in range(4):
        for v in range(views):
            for j in range(4):
                for w in range(views):
                    if (i, v) < (j, w):
                        a, b = features[i, v], features[j, w]
                        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                        (positives if i == j else negatives).append(cosine)
    for ours, expected in zip(pair_similarities(features), (positives, negatives)):
        np.testing.assert_allclose(np.sort(ours), np.sort(expected), atol=1e-6)


def test_features_that_say_nothing():
    alike = np.ones((4, 2, 5), np.float32)
    with pytest.raises(UserError, match='the 8 features are all alike'):
        pair_similarities(alike)
    alike[0, 0] = np.inf
    with pytest.raises(UserError, match='1 of 8 features are not finite'):
        pair_similarities(alike)


def test_separation_by_hand():
    positives, negatives = np.array([0.5, 0.9]), np.array([0.1, 0.6, 0.5])
    # 0.5 beats 0.1 and ties with 0.5; 0.9 beats all three.
    assert separation(positives, negatives) == pytest.approx((1 + 0.5 + 3) / 6)


def test_one_image_has_no_negatives(tmp_path):
    with pytest.raises(UserError, match='one image only'):
        plot_similarities(str(tmp_path / 'a.png'), [('features', np.ones(1), np.ones(0))], '')
    assert not list(tmp_path.iterdir())


def test_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    panel = 'features', rng.uniform(0.5, 1, 20), rng.uniform(-1, 0.7, 90)
    for panels in ([panel], [panel, panel]):
        plot_similarities(str(tmp_path / 'a.png'), panels, 'title')
        assert imread(tmp_path / 'a.png').shape[1] == pytest.approx(682 * len(panels), abs=2)
