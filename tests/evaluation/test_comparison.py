"""Intervals over test images and draws of labels, against simulations and sums by hand."""

import numpy as np
import pytest
from scipy.stats import t as student

from simclr_mm.evaluation.comparison import Estimate, estimate


def crossed(rng, draws, images, of_draw, of_image, rest):
    """A table with these standard deviations of its random effects, and mean 0."""
    return (
        of_draw * rng.normal(size=(draws, 1))
        + of_image * rng.normal(size=(1, images))
        + rest * rng.normal(size=(draws, images))
    )


def test_variance_is_that_of_the_mean_of_crossed_random_effects():
    rng = np.random.default_rng(0)
    cell = ('kNN', 10)
    found = [
        estimate({cell: crossed(rng, 6, 50, 0.3, 1.0, 1.0)}, 10**9, [cell]) for _ in range(2000)
    ]
    of_image = np.mean([each.image_variance for each in found])
    of_draw = np.mean([each.draw_variance for each in found])
    assert of_image == pytest.approx(1.0 / 50 + 1.0 / 300 + 1 / 50**2, rel=0.02)
    assert of_draw == pytest.approx(0.09 / 6 + 1.0 / 300, rel=0.05)
    # Careful by one interaction, 1 / 300.
    expected = of_image + of_draw - 1.0 / 300
    assert np.var([each.mean for each in found]) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize('share', [0.2, 1.0])
def test_variance_holds_for_other_label_sets_not_only_for_other_draws(share):
    """The statistic is a mean over the labels drawn: its variance over sets is 1 / n."""
    rng = np.random.default_rng(1)
    total, images = 100, 3
    means, variances = [], []
    for _ in range(1500):
        labels = rng.normal(size=total)
        tables = {
            ('linear', n): np.repeat(
                [[rng.choice(labels, n, replace=False).mean()] for _ in range(draws)], images, 1
            )
            for n, draws in ((20, 10), (100, 1))
        }
        found = estimate(tables, total, [('linear', round(share * total))])
        means.append(found.mean)
        variances.append(found.draw_variance)
    # 10 draws of 20 from 100: 1/100 for the set, and 4/5 of 1/20 over 10 for the draws.
    expected = 1 / 100 if share == 1 else 1 / 100 + 0.8 / 20 / 10
    assert np.var(means) == pytest.approx(expected, rel=0.1)
    assert np.mean(variances) == pytest.approx(expected, rel=0.05)


def test_average_of_cells_adds_the_sets_errors_not_their_squares():
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(4, 1)).repeat(5, 1) for _ in range(2)]
    tables = {('kNN', 5): rows[0], ('linear', 5): rows[1]}
    found = estimate(tables, 10, list(tables))
    sets = [row[:, 0].var(ddof=1) * 5 / (10 - 5) for row in rows]
    both = ((rows[0] + rows[1]) / 2)[:, 0].var(ddof=1) / 4
    assert found.draw_variance == pytest.approx(both + (np.sqrt(sets).sum() / 2) ** 2)


def test_all_labels_vary_as_the_largest_share_says():
    rng = np.random.default_rng(3)
    few, more = (rng.normal(size=(4, 1)).repeat(5, 1) for _ in range(2))
    tables = {('kNN', 2): few, ('kNN', 20): more, ('kNN', 100): np.zeros((1, 5))}
    found = estimate(tables, 100, [('kNN', 100)])
    assert found.draw_variance == pytest.approx(more[:, 0].var(ddof=1) * 20 / 80)


def test_interval_is_students_and_few_equal_images_are_not_certain():
    low, high = Estimate(0.5, 0.04, 0.0, images=11, draws=1).interval(0.95)
    assert (low, high) == pytest.approx((0.5 - 0.2 * 2.2281, 0.5 + 0.2 * 2.2281), abs=1e-4)
    both = Estimate(0.0, 0.03, 0.01, images=11, draws=5)
    freedom = 0.04**2 / (0.03**2 / 10 + 0.01**2 / 4)
    assert both.interval(0.9)[1] == pytest.approx(0.2 * student.ppf(0.95, freedom))
    nothing = estimate({('kNN', 8): np.zeros((1, 20))}, 8, [('kNN', 8)])
    assert nothing.interval(0.95) == pytest.approx((-0.05 * 2.0930, 0.05 * 2.0930), abs=1e-4)
