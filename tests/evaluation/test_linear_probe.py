import sys
from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from simclr_mm.errors import UserError
from simclr_mm.evaluation import few_label_probe, linear_probe, swept_linear_probe


def blobs(n, seed):
    """Three classes on the corners of a triangle, far apart, one axis of huge scale."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    corners = np.array([[0, 0, 0], [9e3, 0, 0], [0, 9, 0]])
    noise = rng.normal(size=(n, 3)) * [1e3, 1, 1]
    return (corners[labels] + noise).astype(np.float32), labels


def test_separable_classes_are_separated():
    assert linear_probe(blobs(600, 0), blobs(300, 1)) > 0.99


def test_random_labels_give_chance():
    features, labels = blobs(900, 0)
    shuffled = np.random.default_rng(2).permutation(labels)
    assert linear_probe((features, shuffled), blobs(900, 1)) < 0.5


def test_few_labels_use_few_labels(monkeypatch):
    used = []
    # The package's attribute of that name is the function, not its module.
    module = sys.modules['simclr_mm.evaluation.linear_probe']
    monkeypatch.setattr(
        module, 'linear_probe', lambda train, test, c: used.append(train) or len(used)
    )
    assert few_label_probe(blobs(600, 0), blobs(9, 1), per_class=4, draws=3) == 2.0
    assert [np.bincount(labels).tolist() for _, labels in used] == [[4, 4, 4]] * 3
    assert len({features.tobytes() for features, _ in used}) == 3  # others in each draw


def noisy(n, seed):
    """Four classes that overlap, on 3 of 40 axes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    features = rng.normal(size=(n, 40))
    features[:, :3] += np.eye(4)[labels][:, :3] * 1.5
    return features.astype(np.float32), labels + 5  # classes need not begin at 0


def test_sweep_chooses_as_scikit_learn_would():
    train, test = noisy(200, 0), noisy(2000, 1)
    penalties = [1e4, 1e2, 1, 1e-2]
    found = swept_linear_probe(train, test, penalties, validation_share=0.5, seed=3)

    fitted, held_out = train_test_split(
        np.arange(200), test_size=0.5, random_state=3, stratify=train[1]
    )

    def score(rows, scored, penalty):
        scaler = StandardScaler().fit(train[0][rows])
        model = LogisticRegression(C=1 / penalty, max_iter=10000, tol=1e-7)
        model.fit(scaler.transform(train[0][rows]), train[1][rows])
        return model.score(scaler.transform(scored[0]), scored[1])

    validation = train[0][held_out], train[1][held_out]
    expected = [score(fitted, validation, penalty) for penalty in penalties]
    assert found.validation == pytest.approx(expected, abs=0.011)  # one image
    best = max(zip(expected, penalties))[1]
    assert found.penalty == best == 1e2
    assert found.accuracy == pytest.approx(score(slice(None), test, best), abs=0.003)


def test_of_equally_good_penalties_the_strongest():
    found = swept_linear_probe(blobs(600, 0), blobs(90, 1), [1e-2, 10, 1, 0.1])
    assert found.validation == [1.0] * 4 and found.penalty == 10


def test_sweep_of_too_few_images():
    with pytest.raises(ValueError, match='1 of the smallest.*fixed penalty'):
        swept_linear_probe((np.eye(3), np.arange(3)), blobs(9, 1))


def test_fits_that_do_not_end_are_counted(monkeypatch):
    module = sys.modules['simclr_mm.evaluation.linear_probe']
    monkeypatch.setattr(
        module, 'LogisticRegression', partial(module.LogisticRegression, iterations=2)
    )
    with pytest.warns(UserWarning, match='1 of 1 fits were stopped'):
        linear_probe(noisy(200, 0), noisy(20, 1), c=1e3)


@pytest.mark.parametrize('c', [0, -1, float('nan')])
def test_c_is_above_zero(c):
    with pytest.raises(UserError, match='c = '):
        linear_probe(noisy(20, 0), noisy(20, 1), c=c)


def test_rows_that_are_not_finite_are_left_out_and_counted(monkeypatch):
    """Of training; of a test row the score would mean nothing."""
    lines = []
    monkeypatch.setattr(
        'simclr_mm.evaluation.features.print_log', lambda line, **kwargs: lines.append(line)
    )
    (features, labels), test = noisy(200, 0), noisy(300, 1)
    left = np.delete(np.arange(200), [3, 50])
    broken = features.copy()
    broken[3] = np.nan
    broken[50, 7] = np.inf
    held_out = np.arange(40, 60)
    for probe in (
        linear_probe,
        partial(few_label_probe, per_class=4, draws=3),
        lambda train, test: swept_linear_probe(train, test, [10, 1]).accuracy,
    ):
        lines.clear()
        found = probe((broken, labels), test)
        assert lines[0].startswith('2 of 200 training features') and 'rows 3, 50;' in lines[0]
        assert found == probe((features[left], labels[left]), test)
    found = swept_linear_probe((broken, labels), test, [10, 1], held_out=held_out)
    again = np.flatnonzero(np.isin(left, held_out))
    right = swept_linear_probe((features[left], labels[left]), test, [10, 1], held_out=again)
    assert found.validation == right.validation and len(again) == 19
    with pytest.raises(ValueError, match='2 of 200 test features.*: rows 3, 50; leave them out'):
        linear_probe(test, (broken, labels))
