"""Measures without labels against loops and against features known by hand."""

import math

import numpy as np
import pytest
import torch

from simclr_mm.errors import UserError
from simclr_mm.evaluation import LabelFreeMetrics
from simclr_mm.evaluation.label_free import alignment, effective_rank, feature_std, uniformity

VIEWS = torch.randn(30, 3, 5, generator=torch.Generator().manual_seed(0)) + 0.5
X = VIEWS[:, 0]


def unit(x):
    return np.array(x) / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize('x', [X, X[:3]], ids=['tall', 'wide'])
def test_effective_rank_equals_the_formula(x):
    values = np.linalg.svd(x.double().numpy(), compute_uv=False)
    entropy = 0.0
    for value in values:
        p = value / values.sum() + 1e-7
        entropy -= p * math.log(p)
    assert effective_rank(x) == pytest.approx(math.exp(entropy), rel=1e-9)


def test_alignment_and_uniformity_equal_loops():
    views = unit(VIEWS)
    distances = [
        np.sum((image[p] - image[q]) ** 2)
        for image in views
        for p in range(3)
        for q in range(3)
        if p != q
    ]
    assert alignment(VIEWS) == pytest.approx(np.mean(distances))
    x = views[:, 0]
    potentials = [
        math.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(30) for j in range(30) if i != j
    ]
    assert uniformity(X) == pytest.approx(math.log(np.mean(potentials)), rel=1e-5)
    assert feature_std(X) == pytest.approx(np.mean(np.std(x, axis=0)))


def test_uniformity_in_chunks(monkeypatch):
    whole = uniformity(X)
    monkeypatch.setattr('simclr_mm.evaluation.label_free.CHUNK', 7)
    assert uniformity(X) == pytest.approx(whole, rel=1e-6)


def test_known_features():
    """All the same; one axis each; the signs of a hypercube, which sum to zero."""
    same = torch.tensor([[1.0, 2.0, 2.0]]).repeat(50, 1)
    assert effective_rank(same) == pytest.approx(1, abs=1e-4)
    assert feature_std(same) == pytest.approx(0, abs=1e-12)
    assert uniformity(same) == pytest.approx(0, abs=1e-6)
    assert alignment(same[:, None].repeat(1, 2, 1)) == pytest.approx(0, abs=1e-12)
    dead = torch.zeros(9, 4)
    assert effective_rank(dead) == pytest.approx(1, abs=1e-4)
    assert uniformity(dead) == alignment(dead[:, None].repeat(1, 2, 1)) == 0
    axes = torch.eye(8)
    assert effective_rank(axes) == pytest.approx(8, rel=1e-4)
    assert uniformity(axes) == pytest.approx(-4)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6)
    assert feature_std(signs) == pytest.approx(6**-0.5)
    opposite = torch.stack([signs, -signs], dim=1)
    assert alignment(opposite) == pytest.approx(4)


def rows(features, gallery=False):
    return [
        dict(feature=feature, sample_idx=i, gallery=gallery) for i, feature in enumerate(features)
    ]


def evaluate(batches, **kwargs):
    metric = LabelFreeMetrics(**kwargs)
    for batch in batches:
        metric.process({}, batch)
    assert metric.results[0] and len(metric.results) == 1
    return metric.evaluate(10**6)


def test_metric_of_single_images_and_of_views():
    single = evaluate([rows(X), rows(VIEWS[:, 1], gallery=True)])
    assert single == pytest.approx(
        {
            'label_free/effective_rank': effective_rank(X),
            'label_free/feature_std': feature_std(X),
            'label_free/isotropic_std': 5**-0.5,
            'label_free/uniformity': uniformity(X),
        }
    )
    views = evaluate([rows(VIEWS)])
    for name, function in (
        ('effective_rank', effective_rank),
        ('feature_std', feature_std),
        ('uniformity', uniformity),
    ):
        expected = np.mean([function(VIEWS[:, v]) for v in range(3)])
        assert views[f'label_free/{name}'] == pytest.approx(expected)
    assert views['label_free/alignment'] == pytest.approx(alignment(VIEWS))


def test_the_same_few_images_in_any_order_and_bounded_memory():
    """Also with images twice, as mmengine fills up the last batch of a rank."""
    batch = rows(X)
    whole = evaluate([batch], max_samples=6)
    assert whole != evaluate([batch])
    assert evaluate([batch[20:], batch[:20], batch[:4]], max_samples=6) == whole
    metric = LabelFreeMetrics(max_samples=6)
    for sample in batch:
        metric.process({}, [sample])
        assert len(metric.results[0]) <= 12
    assert metric.evaluate(30) == whole


def test_joined_datasets_count_from_zero_each():
    batch = [dict(feature=x, sample_idx=i % 15, img_path=f'{i // 15}.jpg') for i, x in enumerate(X)]
    found = evaluate([batch])
    assert found['label_free/feature_std'] == pytest.approx(feature_std(X))


def test_errors_name_the_fix():
    with pytest.raises(ValueError, match='max_samples is 1'):
        LabelFreeMetrics(max_samples=1)
    with pytest.raises(ValueError, match='PackInputs.meta_keys'):
        LabelFreeMetrics().process({}, [dict(feature=X[0])])
    metric = LabelFreeMetrics()
    metric.process({}, rows(X[:1]))
    with pytest.raises(ValueError, match='1 image'):
        metric.evaluate(1)


def test_rows_that_are_not_finite_are_left_out():
    broken = VIEWS.clone()
    broken[4, 1, 2] = math.nan
    rows = [i for i in range(30) if i != 4]
    found, right = (
        _evaluated(LabelFreeMetrics(), views, numbers)
        for views, numbers in ((broken, range(30)), (broken[rows], rows))
    )
    assert found == right


def test_one_row_left_is_no_comparison():
    views = VIEWS[:2].clone()
    views[1, 0, 0] = math.nan
    with pytest.raises(UserError, match='1 image'):
        _evaluated(LabelFreeMetrics(), views, range(2))


def _evaluated(metric, views, numbers):
    metric.process({}, [dict(feature=v, sample_idx=i) for v, i in zip(views, numbers)])
    return metric.evaluate(len(views))
