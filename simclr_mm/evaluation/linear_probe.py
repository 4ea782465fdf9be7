"""Linear probes on fixed features, by scikit-learn."""
from typing import Tuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from simclr_mm.datasets import class_balanced_subset

Labelled = Tuple[np.ndarray, np.ndarray]  # (n, C) features, (n,) labels


def linear_probe(train: Labelled, test: Labelled, c: float = 1.0) -> float:
    """Accuracy of multinomial logistic regression on standardised features.

    Source: linear evaluation, arXiv:2002.05709, Sec. 2.3; L-BFGS as in its B.8.

    Args:
        train: (n, C) features and (n,) labels to fit.
        test: (m, C) features and (m,) labels to predict.
        c: Inverse strength of the L2 penalty, > 0.

    Returns:
        Share of the test labels predicted, in [0, 1].
    """
    # 2000 iterations: raw pixels of CIFAR-10 converge after about a thousand.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    return float(probe.fit(*train).score(*test))


def few_label_probe(train: Labelled,
                    test: Labelled,
                    per_class: int = 5,
                    draws: int = 20,
                    c: float = 1.0) -> float:
    """Mean accuracy of :func:`linear_probe` on a few labels of each class.

    Args:
        train: (n, C) features and (n,) labels to draw from.
        test: (m, C) features and (m,) labels to predict.
        per_class: Labels of each class in one draw.
        draws: Draws, with seeds 0 to draws - 1.
        c: Inverse strength of the L2 penalty, > 0.

    Returns:
        Mean share over the draws, in [0, 1].
    """
    features, labels = train
    accuracies = []
    for seed in range(draws):
        rows = class_balanced_subset(labels, per_class, seed)
        accuracies.append(linear_probe((features[rows], labels[rows]), test, c))
    return float(np.mean(accuracies))
