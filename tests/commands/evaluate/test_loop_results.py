"""What the metrics of a test loop are called and measured in."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from simclr_mm.commands.evaluate.loop_results import (
    classifier_protocol,
    knn_settings,
    run_of_metrics,
    scored_dataset,
)


def pretraining(**options):
    dataset = dict(
        type='simclr_mm.GalleryAndQuery',
        query=dict(type='simclr_mm.CIFAR10', split='test'),
        **options,
    )
    evaluators = [dict(type='simclr_mm.ProbeAccuracy'), dict(type='simclr_mm.KNNAccuracy', k=7)]
    return Config(
        dict(
            model=dict(type='simclr_mm.SimCLR'),
            test_dataloader=dict(dataset=dataset),
            test_evaluator=evaluators,
        )
    )


def classifier(frozen, dataset):
    hooks = (
        []
        if frozen is None
        else [dict(type='Other'), dict(type='simclr_mm.PretrainedBackboneHook', frozen=frozen)]
    )
    return Config(
        dict(
            model=dict(type='ImageClassifier'),
            custom_hooks=hooks,
            train_dataloader=dict(dataset=dataset),
            test_dataloader=dict(dataset=dict(type='CustomDataset', data_root='d/x')),
        )
    )


def results(metrics, cfg):
    run = run_of_metrics(metrics, cfg, 'a.py', 'b.pth', nn.Linear(2, 2), 1.0)
    assert run.seed is None and len(run.checkpoint_sha256) == 64
    return [(r.task, r.protocol, r.metric, r.value, r.unit, r.settings) for r in run.results]


def test_pretraining_metrics():
    metrics = {'knn/top1': 58.3, 'probe/top1': 60.0, 'label_free/effective_rank': 39.1}
    knn = dict(k=7, temperature=0.07, gallery_per_class=9)
    assert results(metrics, pretraining(gallery_per_class=9)) == [
        ('classification', 'knn', 'top1', 58.3, '%', knn),
        ('classification', 'online-probe', 'top1', 60.0, '%', {}),
        ('representation', 'label-free', 'effective_rank', 39.1, '', {}),
    ]
    assert knn_settings(dict(type='KNNAccuracy'), {}) == dict(k=200, temperature=0.07)


def test_classifier_metrics():
    metrics = {
        'accuracy/top1': torch.tensor(61.0),
        'single-label/support': 10,
        'confusion_matrix/result': np.eye(2),
    }
    cfg = classifier(True, dict(type='CIFAR10'))
    assert results(metrics, cfg) == [
        ('classification', 'linear-published', 'top1', 61.0, '%', {}),
        ('classification', 'linear-published', 'support', 10.0, '', {}),
    ]


@pytest.mark.parametrize(
    'frozen, dataset, expected',
    [
        (None, dict(type='CIFAR10'), 'classifier'),
        (False, dict(type='CIFAR10'), 'fine-tuned'),
        (False, dict(type='simclr_mm.LabelSubset', share=0.01, seed=3), 'fine-tuned-1%'),
        (True, dict(type='LabelSubset', per_class=5), 'linear-published-5-labels'),
        (False, dict(type='LabelSubset', list_file='a/1percent.txt'), 'fine-tuned-1percent'),
    ],
)
def test_protocols_of_classifiers(frozen, dataset, expected):
    name, settings = classifier_protocol(classifier(frozen, dataset))
    assert name == expected
    assert settings == {key: value for key, value in dataset.items() if key != 'type'}


@pytest.mark.parametrize('until', [0, 1])
def test_the_layer_that_a_classifier_starts_from_is_a_setting(until):
    cfg = classifier(False, dict(type='LabelSubset', share=0.01))
    cfg.model.neck = dict(type='simclr_mm.ProjectionNeck', until=until)
    assert classifier_protocol(cfg) == ('fine-tuned-1%', dict(until=until, share=0.01))


def test_names_of_test_data(tmp_path):
    folders = dict(type='CustomDataset', data_root=str(tmp_path / 'birds' / 'val'))
    assert scored_dataset(folders) == ('birds', 'val')
    rest = dict(type='simclr_mm.LabelSubset', rest=True, dataset=folders)
    assert scored_dataset(rest) == ('birds', 'val')
    assert scored_dataset(dict(type='simclr_mm.Digits', split='test')) == ('Digits', 'test')
    assert scored_dataset(dict(type='x.Other')) == ('Other', '')
