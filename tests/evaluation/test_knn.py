"""Weighted kNN against a loop over queries and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from simclr_mm.errors import UserError
from simclr_mm.evaluation import KNNAccuracy, knn_predict

RNG = np.random.default_rng(0)
GALLERY, QUERY = RNG.normal(size=(300, 8)), RNG.normal(size=(2100, 8))
LABELS = RNG.integers(0, 5, 300)
ARGS = (torch.tensor(QUERY), torch.tensor(GALLERY), torch.tensor(LABELS))


def naive(k, temperature):
    predicted = []
    for query in QUERY[:200]:
        similarity = GALLERY @ query / np.linalg.norm(GALLERY, axis=1) / np.linalg.norm(query)
        votes = np.zeros(5)
        for row in np.argsort(-similarity)[:k]:
            votes[LABELS[row]] += np.exp(similarity[row] / temperature)
        predicted.append(votes.argmax())
    return predicted


@pytest.mark.parametrize('k, temperature', [(1, 0.07), (20, 0.07), (200, 0.5)])
def test_equals_a_loop(k, temperature):
    assert knn_predict(*ARGS, k, temperature)[:200].tolist() == naive(k, temperature)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_agrees_with_scikit_learn_but_for_ties():
    """Differs only where votes, or the k-th similarity, tie to float32's precision."""
    k, temperature = 20, 0.1

    def weights(distance):  # squared distance of unit vectors is 2 - 2 cos
        return np.exp((1 - distance**2 / 2) / temperature)

    # Doubled gallery rows of other labels make real ties of both kinds.
    gallery = np.concatenate([GALLERY, GALLERY[:60]])
    labels = np.concatenate([LABELS, (LABELS[:60] + 1) % 5])
    reference = KNeighborsClassifier(k, weights=weights).fit(unit(gallery), labels)
    expected = reference.predict(unit(QUERY))
    ours = knn_predict(
        torch.tensor(QUERY), torch.tensor(gallery), torch.tensor(labels), k, temperature
    ).numpy()

    ties = 0
    for row in np.flatnonzero(ours != expected):
        similarity = unit(gallery) @ unit(QUERY[row : row + 1])[0]
        order = np.argsort(-similarity)
        kth, next_ = similarity[order[k - 1]], similarity[order[k]]
        votes = np.zeros(5)
        np.add.at(votes, labels[order[:k]], np.exp(similarity[order[:k]] / temperature))
        tied_votes = np.diff(np.sort(votes)[-2:])[0] < 1e-5 * votes.max()
        assert abs(kth - next_) < 1e-6 or tied_votes, row
        ties += 1
    assert 0 < ties < 0.05 * len(QUERY)


@pytest.mark.parametrize(
    'k, temperature, match',
    [
        (0, 1.0, 'k = 0, but the gallery has 300'),
        (301, 1.0, 'k = 301, but the gallery has 300'),
        (5.0, 1.0, 'k = 5.0: give a whole number'),
        (5, 0.0, 'temperature = 0'),
        (5, float('nan'), 'temperature = nan'),
    ],
)
def test_bad_arguments(k, temperature, match):
    with pytest.raises(ValueError, match=match):
        knn_predict(*ARGS, k, temperature)


def test_labels_below_zero_are_refused():
    query, gallery, labels = ARGS
    with pytest.raises(UserError, match='60 gallery labels are negative'):
        knn_predict(query, gallery, labels.where(torch.arange(300) >= 60, -1), 5)


@pytest.mark.parametrize('size', [1e30, 1e300])
def test_rows_whose_length_float32_cannot_hold_are_left_out(size):
    query, gallery, labels = ARGS
    long = gallery.clone()
    long[::3] *= size
    rows = np.arange(300) % 3 != 0
    right = knn_predict(query[:50], gallery[rows], labels[rows], 20)
    assert knn_predict(query[:50], long, labels, 20).equal(right)
    with pytest.raises(UserError, match='50 of 50 queries'):
        knn_predict(query[:50] * size, gallery, labels, 20)


def test_metric_counts_the_five_classes_with_most_votes():
    """Beside a loop, which ranks the classes of the k neighbours."""
    k, rng = 15, np.random.default_rng(1)
    features, labels = rng.normal(size=(260, 4)), rng.integers(0, 9, 260)
    metric = KNNAccuracy(k=k, temperature=0.5)
    metric.process(
        {},
        [
            dict(feature=torch.tensor(row), gt_label=torch.tensor([label]), gallery=i < 200)
            for i, (row, label) in enumerate(zip(features, labels))
        ],
    )
    hits = np.zeros(6)
    for query, label in zip(unit(features)[200:], labels[200:]):
        similarity = unit(features)[:200] @ query
        votes = {}
        for row in np.argsort(-similarity)[:k]:
            votes[labels[row]] = votes.get(labels[row], 0) + np.exp(similarity[row] / 0.5)
        ranked = sorted(votes, key=votes.get, reverse=True)
        hits += [label in ranked[:n] for n in range(6)]
    expected = {f'knn/top{n}': pytest.approx(100 * hits[n] / 60) for n in (1, 5)}
    assert hits[1] < hits[5] < 60
    assert metric.evaluate(260) == expected


def test_rows_that_are_not_finite_are_left_out_and_counted(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'simclr_mm.evaluation.features.print_log', lambda line, **kwargs: lines.append(line)
    )
    query, gallery, labels = ARGS
    broken = gallery.clone()
    broken[[7, 100, 299]] = torch.tensor([[torch.nan], [torch.inf], [-torch.inf]]).double()
    left = broken.isfinite().all(1)
    expected = knn_predict(query, gallery[left], labels[left], 20)
    assert not lines
    assert knn_predict(query, broken, labels, 20).equal(expected)
    assert lines == [
        '3 of 300 gallery features of kNN are not finite (NaN or infinity): '
        'rows 7, 100, 299; they are left out.'
    ]
    with pytest.raises(ValueError, match='no row is left'):
        knn_predict(query, gallery * torch.nan, labels, 20)
    bad = query.clone()
    bad[:9, 0] = torch.nan
    with pytest.raises(ValueError, match=r'9 of 2100 queries.*: rows 0, .* 4 and 4 more; leave'):
        knn_predict(bad, gallery, labels, 20)


def test_votes_do_not_vanish_at_a_low_temperature():
    """The nearest neighbour decides, however far it is."""
    query, gallery, labels = -ARGS[1], ARGS[1], ARGS[2]
    nearest = (unit(query) @ unit(gallery).T).argmax(1)
    predicted = knn_predict(query, gallery, labels, 5, temperature=1e-5)
    assert predicted.tolist() == labels[nearest].tolist()


def test_a_k_beyond_the_gallery_is_seen_when_the_loop_is_built():
    metric = KNNAccuracy(k=20)
    metric.dataset_meta = dict(classes=['a'], gallery_images=20)
    assert metric.dataset_meta['classes'] == ['a']
    metric.dataset_meta = dict(classes=['a'])  # another dataset does not say
    with pytest.raises(ValueError, match='k = 20, but the gallery has 12 images: set val_eval'):
        metric.dataset_meta = dict(gallery_images=12)


def test_metric_without_a_gallery():
    with pytest.raises(ValueError, match='simclr_mm.GalleryAndQuery'):
        KNNAccuracy().process({}, [dict(feature=torch.zeros(2), gt_label=0)])


def test_metric_of_views():
    with pytest.raises(ValueError, match=r'\(2, 8\).*take simclr_mm.TwoViews out'):
        KNNAccuracy().process({}, [dict(feature=torch.zeros(2, 8), gt_label=0, gallery=0)])


def test_a_temperature_of_zero_is_refused_before_a_step():
    with pytest.raises(ValueError, match='temperature = 0'):
        KNNAccuracy(k=1, temperature=0)
