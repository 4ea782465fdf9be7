"""Linear probes on fixed features."""
import warnings
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
from mmengine.device import get_device
from sklearn.model_selection import train_test_split

from simclr_mm.datasets import class_balanced_subset

from .logistic_regression import LogisticRegression

Labelled = Tuple[np.ndarray, np.ndarray]  # (n, C) features, (n,) labels

# Sec. B.8: "45 logarithmically spaced values between 1e-6 and 1e5". Strongest first:
# each fit starts from the one before, and strong penalties are quick.
PENALTIES = tuple(np.logspace(5, -6, 45).tolist())


class Sweep(NamedTuple):
    """What :func:`swept_linear_probe` found.

    Args:
        accuracy: Share of the test labels predicted, in [0, 1].
        penalty: The chosen one.
        validation: Share of the validation labels predicted, for each penalty.
    """
    accuracy: float
    penalty: float
    validation: List[float]


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
    return _fit_and_score(train, test, [1 / c])[0]


def swept_linear_probe(train: Labelled,
                       test: Labelled,
                       penalties: Sequence[float] = PENALTIES,
                       validation_share: float = 0.2,
                       seed: int = 0) -> Sweep:
    """Linear evaluation with the L2 penalty that is best on held-out training images.

    The penalty multiplies half the squared weights beside the sum of cross entropies,
    so it is 1 / C of scikit-learn. The best one is that of the highest validation
    accuracy, of equals the largest; the test score is that of a fit to all training
    images.

    Source: arXiv:2002.05709, Sec. B.8.1, the linear classifier of transfer learning.

    Args:
        train: (n, C) features and (n,) labels, of each class two at least.
        test: (m, C) features and (m,) labels to predict.
        penalties: Values to try, in the order in which they are fitted.
        validation_share: Of the training images, the same of each class. The paper does
            not say how many it held out.
        seed: Of the validation split.

    Raises:
        ValueError: A class is too small to be split.

    Differs: features are standardised, which the paper does not mention.
    """
    features, labels = train
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2 or validation_share * len(labels) < len(counts):
        raise ValueError(f'linear evaluation: {len(labels)} training images of '
                         f'{len(counts)} classes, {counts.min()} of the smallest, are '
                         'too few to hold some of each class out for validation: use '
                         'linear_probe with a fixed penalty.')
    fitted, held_out = train_test_split(
        np.arange(len(labels)),
        test_size=validation_share,
        random_state=seed,
        stratify=labels)
    scores = _fit_and_score((features[fitted], labels[fitted]),
                            (features[held_out], labels[held_out]), penalties)
    best = max(zip(scores, penalties))[1]
    return Sweep(_fit_and_score(train, test, [best])[0], best, scores)


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


def _fit_and_score(train: Labelled, test: Labelled,
                   penalties: Sequence[float]) -> List[float]:
    """Share of the test labels predicted for each penalty."""
    classes, labels = np.unique(train[1], return_inverse=True)
    regression = LogisticRegression(train[0], labels, len(classes), get_device())
    scores, unconverged = [], 0
    for penalty in penalties:
        fit = regression.fit(penalty)
        unconverged += not fit.converged
        scores.append(float((classes[fit.predict(test[0])] == test[1]).mean()))
    if unconverged:
        warnings.warn(f'linear probe: {unconverged} of {len(scores)} fits were stopped '
                      f'after {regression.iterations} iterations of L-BFGS. Small '
                      'penalties on separable classes do this.')
    return scores
