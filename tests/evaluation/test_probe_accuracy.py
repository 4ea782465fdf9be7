import pytest
import torch

from simclr_mm.evaluation import ProbeAccuracy


def sample(scores, label, **extra):
    return dict(pred_score=torch.tensor(scores), gt_label=torch.tensor([label]), **extra)


@pytest.mark.portable
def test_queries_are_counted():
    """By hand: ranks 1, 2 and 3 of the true class; the gallery would be all wrong."""
    metric = ProbeAccuracy(topk=(1, 2))
    metric.process(
        {},
        [
            sample([0.1, 0.2, 0.7], 0, gallery=True),
            sample([0.1, 0.2, 0.7], 2, gallery=False),
            sample([0.1, 0.2, 0.7], 1),
        ],
    )
    metric.process({}, [sample([0.1, 0.2, 0.7], 0, gallery=False)])
    found = metric.evaluate(4)
    assert found == pytest.approx({'probe/top1': 100 / 3, 'probe/top2': 200 / 3})


def test_scores_that_are_not_finite_hit_nothing():
    metric = ProbeAccuracy(topk=(1, 3))
    metric.process({}, [sample([float('nan')] * 3, label) for label in range(3)])
    assert metric.evaluate(3) == {'probe/top1': 0, 'probe/top3': 0}


def test_errors_name_the_fix():
    with pytest.raises(ValueError, match='model.online_probe'):
        ProbeAccuracy().process({}, [dict(feature=torch.zeros(2), gt_label=0)])
    with pytest.raises(ValueError, match='topk = .1, 5.*3 classes'):
        ProbeAccuracy((1, 5)).process({}, [sample([0.1, 0.2, 0.7], 0)])


@pytest.mark.parametrize('topk', [(0,), (1, 2.5), (), 5, '15'])
def test_a_topk_that_counts_nothing_is_refused_at_once(topk):
    with pytest.raises(ValueError, match='ProbeAccuracy: topk = .*from 1'):
        ProbeAccuracy(topk)
