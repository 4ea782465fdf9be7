"""One logistic regression for each class, for images with several classes.

n and m examples, C feature width, K classes.
"""

from collections.abc import Sequence

import numpy as np

from .logistic_regression import LogisticRegression


def one_vs_rest(
    train: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    penalties: Sequence[float],
    device: str,
) -> tuple[list[np.ndarray], int]:
    """Scores of classifiers that each tell one class from all others.

    Args:
        train: (n, C) features, and (n, K) targets: 1 for the classes of an example, 0
            for others; -1 keeps the example out of the fit of this class.
        features: (m, C) to score.
        penalties: Of the squared weights, 1 / C of scikit-learn's binary LogisticRegression.

    Returns:
        (m, K) logits for each penalty, and the number of fits that did not converge.
    """
    scores = [np.empty((len(features), train[1].shape[1])) for _ in penalties]
    unconverged = 0
    for k, target in enumerate(train[1].T):
        known = target >= 0
        regression = LogisticRegression(train[0][known], target[known], 2, device)
        for row, penalty in enumerate(penalties):
            # The two classes get opposite weights, each half the binary weight. Together
            # their squares are half the binary square.
            fit = regression.fit(2 * penalty)
            unconverged += not fit.converged
            logits = fit.logits(features)  # (m, 2)
            scores[row][:, k] = logits[:, 1] - logits[:, 0]
    return scores, unconverged
