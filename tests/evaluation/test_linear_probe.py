import sys

import numpy as np

from simclr_mm.evaluation import few_label_probe, linear_probe


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
    monkeypatch.setattr(module, 'linear_probe',
                        lambda train, test, c: used.append(train[1]) or len(used))
    assert few_label_probe(blobs(600, 0), blobs(9, 1), per_class=4, draws=3) == 2.0
    assert [np.bincount(labels).tolist() for labels in used] == [[4, 4, 4]] * 3
