"""Against scikit-learn, and against what the minimum has to satisfy."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.preprocessing import StandardScaler

from simclr_mm.evaluation.logistic_regression import LogisticRegression


def correlated(n, seed, width=24, classes=4):
    """Overlapping classes; features correlated, of very different scale, one constant."""
    mixing = np.random.default_rng(0).normal(size=(width, width)) * np.geomspace(1, 300, width)
    means = np.random.default_rng(1).normal(size=(classes, width)) * 0.5
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    features = (means[labels] + rng.normal(size=(n, width))) @ mixing + 7
    features[:, 3] = 5
    return features.astype(np.float32), labels


TRAIN, TEST = correlated(1000, 2), correlated(2000, 3)


def reference(train, test, penalty):
    scaler = StandardScaler().fit(train[0])
    model = Reference(C=1 / penalty, max_iter=10000, tol=1e-8)
    model.fit(scaler.transform(train[0]), train[1])
    return model.predict_proba(scaler.transform(test[0]))


# 15 examples are fewer than features, and separable: there the last row's minimum is so
# flat that the two differ where they stop.
@pytest.mark.parametrize(
    'n, penalty, share',
    [
        (1000, 1e3, 1),
        (1000, 1, 1),
        (1000, 1e-3, 0.997),
        (15, 10, 1),
        (15, 0.1, 0.997),
        (15, 1e-3, 0.99),
    ],
)
def test_agrees_with_scikit_learn(n, penalty, share):
    train = TRAIN[0][:n], TRAIN[1][:n]
    expected = reference(train, TEST, penalty)
    fit = LogisticRegression(*train, classes=4).fit(penalty)
    assert fit.converged
    logits = torch.from_numpy(TEST[0]) @ fit.weight.T + fit.bias
    if penalty >= 1:
        np.testing.assert_allclose(logits.softmax(1), expected, atol=5e-3)
    same = fit.predict(TEST[0]) == expected.argmax(1)
    assert same.mean() >= share


def test_a_path_of_penalties_equals_single_fits():
    path = LogisticRegression(*TRAIN, classes=4)
    for penalty in (1e4, 100, 1, 1e-2):
        along = path.fit(penalty)
        alone = LogisticRegression(*TRAIN, classes=4).fit(penalty)
        x = torch.from_numpy(TEST[0])
        torch.testing.assert_close(
            x @ along.weight.T + along.bias, x @ alone.weight.T + alone.bias, atol=0.05, rtol=0
        )


def test_correlated_features_take_few_steps():
    """scikit-learn's coordinates need several times as many."""
    scaled = StandardScaler().fit_transform(TRAIN[0])
    steps = Reference(C=1, max_iter=10000, tol=1e-5).fit(scaled, TRAIN[1]).n_iter_[0]
    fit = LogisticRegression(*TRAIN, classes=4, iterations=int(steps) // 2).fit(1.0)
    assert fit.converged


def test_running_out_of_iterations_is_said():
    assert not LogisticRegression(*TRAIN, classes=4, iterations=2).fit(1e-3).converged
