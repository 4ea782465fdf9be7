"""Accuracies and the eleven-point average precision, against loops and hand numbers."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.evaluation import SingleLabelMetric
from mmpretrain.structures import DataSample

from simclr_mm.evaluation import CLASS_METRICS, MeanPerClass, VOC07MeanAP
from simclr_mm.evaluation.class_metrics import mean_per_class, voc07_map


def test_mean_per_class_by_hand():
    labels, predicted = np.array([4, 4, 4, 7]), np.array([4, 4, 9, 7])
    assert mean_per_class(predicted, labels) == pytest.approx((2 / 3 + 1) / 2)
    assert CLASS_METRICS['top1'](predicted, labels) == 0.75


def test_fine_tuning_logs_the_same_mean_per_class():
    """mmpretrain's recall, which evaluates fine-tuning, is the mean per class."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [5, 20, 75])
    scores = rng.random((100, 3)) + np.eye(3)[labels] / 2
    recall = SingleLabelMetric.calculate(torch.tensor(scores), torch.tensor(labels), thrs=(None,))[
        0
    ][1]
    ours = mean_per_class(scores.argmax(1), labels)
    assert 100 * ours == pytest.approx(float(recall), abs=1e-4)
    assert ours != pytest.approx(CLASS_METRICS['top1'](scores.argmax(1), labels))


def test_a_class_without_images_does_not_count():
    samples = [
        DataSample().set_gt_label(label).set_pred_score(torch.eye(3)[predicted])
        for label, predicted in ((0, 0), (0, 0), (2, 2), (2, 0))
    ]
    evaluator = Evaluator(MeanPerClass())
    evaluator.process(samples)
    assert evaluator.evaluate(4)['mean_per_class/accuracy'] == pytest.approx(75)


def test_eleven_points_by_hand():
    # Ranked + - +: precision 1 up to recall 1/2, which six of the points ask for, and
    # 2/3 up to recall 1.
    scores = np.array([[0.9], [0.5], [0.7]])
    targets = np.array([[1], [1], [0]])
    assert voc07_map(scores, targets) == pytest.approx((6 + 5 * 2 / 3) / 11)
    # The one in between was difficult: it is as if it were not there.
    assert voc07_map(scores, np.array([[1], [1], [-1]])) == 1


def test_recalls_of_tenths_are_exact():
    # Three of ten, seven others, the rest: precision 1 up to recall 3/10, 10/17 beyond.
    targets = np.array([1] * 3 + [0] * 7 + [1] * 7)[:, None]
    scores = -np.arange(17.0)[:, None]
    assert voc07_map(scores, targets) == pytest.approx((4 + 7 * 10 / 17) / 11)


def eleven_points(scores, targets):
    """The definition, in exact numbers."""
    ranked = sorted(
        (each for each in zip(scores, targets) if each[1] >= 0), key=lambda each: -each[0]
    )
    total = sum(target for _, target in ranked)
    points = []
    for recall in range(11):
        best, hits = Fraction(0), 0
        for place, (_, target) in enumerate(ranked, 1):
            hits += int(target)
            if Fraction(hits, int(total)) >= Fraction(recall, 10):
                best = max(best, Fraction(hits, place))
        points.append(best)
    return float(sum(points) / 11)


def test_eleven_points_as_a_loop():
    rng = np.random.default_rng(0)
    targets = rng.choice([-1, 0, 1], (50, 4), p=[0.1, 0.6, 0.3])
    scores = rng.normal(size=(50, 4)) + targets / 2
    expected = [eleven_points(s, t) for s, t in zip(scores.T, targets.T)]
    assert voc07_map(scores, targets) == pytest.approx(np.mean(expected))


def test_classes_of_no_image_are_left_out():
    scores, targets = np.array([[0.9, 0.1], [0.1, 0.2]]), np.array([[1, 0], [0, -1]])
    assert voc07_map(scores, targets) == 1
    with pytest.raises(ValueError, match='none of the images'):
        voc07_map(scores, np.zeros((2, 2)))


def test_metric_of_the_val_loop():
    """Difficult alone is not scored; difficult and not is a positive."""
    truth = [([0], []), ([], [0]), ([1], []), ([0], [0, 1])]
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.9], [0.6, 0.95]])
    samples = []
    for (labels, difficult), score in zip(truth, scores):
        sample = DataSample().set_gt_label(labels).set_pred_score(score)
        sample.set_field(difficult, 'gt_label_difficult', field_type='metainfo')
        samples.append(sample)
    evaluator = Evaluator(VOC07MeanAP())
    evaluator.process(samples)
    first = (6 + 5 * 2 / 3) / 11  # + - +
    assert evaluator.evaluate(4)['voc07/mAP'] == pytest.approx(100 * (first + 1) / 2)
