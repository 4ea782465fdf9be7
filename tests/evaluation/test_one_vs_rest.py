"""Classifiers for several classes an image, against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from simclr_mm.evaluation import swept_linear_probe
from simclr_mm.evaluation.class_metrics import voc07_map
from simclr_mm.evaluation.logistic_regression import one_vs_rest


def images(n, seed):
    """Two classes that overlap and may come together; some are not known."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6)) * [1, 1, 1, 5, 5, 0.1]
    noisy = features[:, :2] + rng.normal(size=(n, 2))
    targets = (noisy > 0.5).astype(np.int64)
    targets[rng.random((n, 2)) < 0.1] = -1
    return features.astype(np.float32), targets


def sklearn_scores(train, features, penalty):
    columns = []
    for target in train[1].T:
        known = target >= 0
        scaler = StandardScaler().fit(train[0][known])
        model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10000)
        model.fit(scaler.transform(train[0][known]), target[known])
        columns.append(model.decision_function(scaler.transform(features)))
    return np.stack(columns, axis=1)


def test_logits_are_those_of_scikit_learn():
    train, test = images(200, 0), images(50, 1)
    scores, unconverged = one_vs_rest(train, test[0], [10, 0.1], 'cpu')
    assert unconverged == 0
    for penalty, found in zip([10, 0.1], scores):
        expected = sklearn_scores(train, test[0], penalty)
        assert found == pytest.approx(expected, abs=2e-3)


def test_penalty_is_chosen_by_average_precision():
    train, test = images(120, 0), images(400, 1)
    held_out = np.arange(60, 120)
    penalties = [1e3, 10, 1e-3]
    found = swept_linear_probe(train, test, penalties, held_out=held_out, metric=voc07_map)
    fit = train[0][:60], train[1][:60]
    validation = [
        voc07_map(sklearn_scores(fit, train[0][held_out], penalty), train[1][held_out])
        for penalty in penalties
    ]
    assert found.validation == pytest.approx(validation, abs=0.01)
    assert found.penalty == penalties[int(np.argmax(validation))]
    refitted = sklearn_scores(train, test[0], found.penalty)
    assert found.accuracy == pytest.approx(voc07_map(refitted, test[1]), abs=0.01)
    assert found.predicted.shape == (400, 2)
