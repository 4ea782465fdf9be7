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
    """Probabilities in float64: of float32 scikit-learn 1.9 stops 7 times farther off than we."""
    scaler = StandardScaler().fit(train[0].astype(np.float64))
    model = Reference(C=1 / penalty, max_iter=10000, tol=1e-8)
    model.fit(scaler.transform(train[0].astype(np.float64)), train[1])
    return model.predict_proba(scaler.transform(test[0].astype(np.float64)))


# 15 examples are fewer than features, and separable: the last row's minimum is so flat that
# float32 stops beside it.
@pytest.mark.parametrize(
    'n, penalty, tolerance, share',
    [
        (1000, 1e3, 1e-4, 1),
        (1000, 1, 5e-4, 1),
        (1000, 1e-3, 1e-3, 1),
        (15, 10, 5e-4, 1),
        (15, 0.1, 3e-3, 1),
        (15, 1e-3, 0.1, 0.99),
    ],
)
def test_agrees_with_scikit_learn(n, penalty, tolerance, share):
    train = TRAIN[0][:n], TRAIN[1][:n]
    expected = reference(train, TEST, penalty)
    fit = LogisticRegression(*train, classes=4).fit(penalty)
    assert fit.converged
    probabilities = torch.from_numpy(fit.logits(TEST[0])).softmax(1)
    np.testing.assert_allclose(probabilities, expected, atol=tolerance)
    assert (fit.logits(TEST[0]).argmax(1) == expected.argmax(1)).mean() >= share


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e39])
def test_what_float32_cannot_hold_is_refused(value):
    features = TRAIN[0].astype(np.float64)
    features[3, 5] = value
    with pytest.raises(ValueError, match='not finite in float32'):
        LogisticRegression(features, TRAIN[1], classes=4)


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


def test_the_cpu_computes_where_a_device_has_no_float64():
    features, labels = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    on_mps = LogisticRegression(features, labels, 2, device='mps').fit(0.1)
    assert on_mps.weight.equal(LogisticRegression(features, labels, 2).fit(0.1).weight)
