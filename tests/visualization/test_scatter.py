"""Maps keep neighbours together; legends name and count the classes."""

import sys
import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from simclr_mm.errors import UserError
from simclr_mm.visualization.scatter import plot_scatter, project
from simclr_mm.visualization.style import mark


@pytest.fixture(scope='module')
def clusters():
    """Three directions far apart, of different lengths, and 20 features round each."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    features = np.eye(8)[labels] + 0.05 * rng.normal(size=(60, 8))
    return features * rng.uniform(0.1, 10, (60, 1)), labels


@pytest.mark.parametrize('method', ['tsne', 'pca'])
def test_neighbours_stay_together(clusters, method):
    features, labels = clusters
    points = project(features, method, seed=0)
    assert points.shape == (60, 2)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).all()


def test_umap_gets_unit_features_and_the_seed(clusters, monkeypatch):
    """A stand-in: importing the real one compiles for half a minute."""

    class UMAP:
        def __init__(self, n_neighbors, random_state, n_jobs):
            assert (n_neighbors, random_state, n_jobs) == (15, 3, 1)

        def fit_transform(self, features):
            np.testing.assert_allclose((features**2).sum(1), 1)
            return features[:, :2]

    monkeypatch.setitem(sys.modules, 'umap', types.SimpleNamespace(UMAP=UMAP))
    assert project(clusters[0], 'umap', seed=3).shape == (60, 2)


def test_few_images_and_wrong_arguments(clusters, monkeypatch):
    features, _ = clusters
    assert project(features[:4], 'tsne').shape == (4, 2)
    with pytest.raises(ValueError, match='at least 4 images, got 3'):
        project(features[:3], 'tsne')
    with pytest.raises(ValueError, match="'lda': choose one of tsne"):
        project(features, 'lda')
    monkeypatch.setitem(sys.modules, 'umap', None)
    with pytest.raises(ValueError, match='UMAP needs umap-learn'):
        project(features, 'umap')


@pytest.mark.parametrize('method', ['tsne', 'pca'])
@pytest.mark.parametrize('value', [0, 3])
def test_features_that_are_all_alike(method, value):
    """Those of a dead encoder; rounding may tell them apart."""
    features = np.full((48, 128), value, np.float32)
    rounding = value * 1e-7 * np.random.default_rng(0).normal(size=features.shape)
    with pytest.raises(UserError, match='the 48 features are all alike'):
        project((features + rounding).astype(np.float32), method)
    features[0, 0] += 1  # one image differs
    assert np.isfinite(project(features, method)).all()


def test_features_that_are_not_finite(clusters):
    features = clusters[0].copy()
    features[3:5, 2] = np.nan
    with pytest.raises(UserError, match='2 of 60 features are not finite'):
        project(features, 'pca')


def test_the_legend_counts(tmp_path, monkeypatch):
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda self, *args, **kwargs: (figures.append(self), savefig(self, *args, **kwargs)),
    )
    labels = np.array([0] * 3 + [1] * 2 + [3] * 4)
    points = np.random.default_rng(0).normal(size=(9, 2))
    plot_scatter(str(tmp_path / 'a.png'), points, labels, ['a', 'b', 'c', 'd'], 'tsne', 'title')
    (axes,) = figures[0].axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ['a (3)', 'b (2)', 'd (4)']
    assert axes.get_xlabel().startswith('t-SNE')
    many = np.arange(40).repeat(np.arange(1, 41))
    plot_scatter(
        str(tmp_path / 'b.png'),
        np.zeros((len(many), 2)),
        many,
        [str(k) for k in range(40)],
        'pca',
        'title',
    )
    texts = [text.get_text() for text in figures[1].axes[0].get_legend().get_texts()]
    assert len(texts) == 25 and texts[0] == f'16 more classes ({sum(range(1, 17))})'
    assert texts[-1] == '39 (40)'


def test_marks_are_different():
    assert len({mark(k) for k in range(30)}) == 30
