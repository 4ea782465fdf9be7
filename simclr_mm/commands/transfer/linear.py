"""Transfer learning with a linear classifier on the features of a pretrained encoder.

m images, K classes, S side in pixels.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import PackInputs
from mmpretrain.structures import DataSample
from rich.console import Console

from simclr_mm.apis.encoder import Encoder, plain_data
from simclr_mm.commands.command_line import build_dataset
from simclr_mm.commands.evaluate.cache import cached_features, images_hash
from simclr_mm.datasets.label_subset import stratified_subset
from simclr_mm.datasets.nested import with_pipeline
from simclr_mm.engine import Runner
from simclr_mm.evaluation import CLASS_METRICS, PRETRAINED, Labelled, Result, Value
from simclr_mm.evaluation.features import Target, class_of
from simclr_mm.evaluation.linear_probe import VALIDATION_SHARE, swept_linear_probe
from simclr_mm.files.hashes import bytes_hash

from .dataset_table import LOADING, Parts, TransferDataset, class_count

# VOC's annotations mark objects that are difficult to recognise.
PACKING = dict(type='PackInputs', meta_keys=[*PackInputs.DEFAULT_META_KEYS, 'gt_label_difficult'])
PROTOCOL = 'linear-swept'
_BATCH = 256  # images that the encoder embeds at a time


def prepared_for(encoder: Encoder, size: int | None, border: float = 1.0) -> Encoder:
    """The encoder with the preprocessing of its config or, with a size, of the paper.

    The paper resizes the shorter side to ``border`` times the size by bicubic interpolation,
    then crops the centre. ``border`` is 1 for a linear classifier, 256 / 224 for fine-tuning
    (Sec. B.8.1).
    """
    if size is None:
        return encoder
    bicubic: dict[str, Any] = dict(edge='short', interpolation='bicubic', backend='pillow')
    paper = replace(encoder.preprocessing, resize=round(border * size), size=size, **bicubic)
    return replace(encoder, pipeline=paper.pipeline())


def prepared(encoder: Encoder) -> dict[str, Value]:
    """The settings of the preprocessing, for a result."""
    how = encoder.preprocessing
    return dict(size=how.size, resize=how.resize, interpolation=how.interpolation)


def inputs_hash(encoder: Encoder, dataset: TransferDataset, parts: Parts) -> str:
    """Short hash of the encoder, its transform, and the images and labels of each part."""
    read = [parts.train, parts.test]
    if dataset.validates:  # otherwise the seed decides what is held out
        read = [parts.fit, parts.validation, parts.test]
    key = dict(
        encoder.fingerprint(),
        model=plain_data(encoder.config.model),
        parts=plain_data(read),
        images=[images_hash(build_dataset(part)) for part in read],
    )
    return bytes_hash([json.dumps(key, sort_keys=True).encode()])[:16]


def test_pipeline(dataset: TransferDataset, encoder: Encoder) -> list[dict]:
    """Transforms without augmentation."""
    loading = [] if dataset.in_memory else [LOADING]
    return [*loading, *encoder.preprocessing.pipeline()[1:-1], PACKING]


def linear_transfer(
    encoder: Encoder,
    dataset: TransferDataset,
    parts: Parts,
    cache: str | Path | None = None,
    workers: int = 0,
    seed: int = 0,
) -> list[Result]:
    """Fit logistic regressions to features, choose the L2 penalty, score the test.

    Images with several classes get a classifier for each class.
    Source: SimCLR, arXiv:2002.05709, Sec. B.8.1, transfer learning via a linear classifier.
    """
    pipeline = test_pipeline(dataset, encoder)

    def features(name: str) -> Labelled:
        """Features and labels, or targets, of every image of a part."""
        settings: dict[str, Any] = dict(
            batch_size=_BATCH,
            num_workers=0 if dataset.in_memory else workers,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=with_pipeline(getattr(parts, name), pipeline),
        )
        loader = Runner.build_dataloader(settings, seed=0)
        target: Callable[[DataSample], Target] = class_of
        if dataset.multi_label:
            target = _Targets(class_count(loader.dataset))
        title = f'{dataset.title} {name}'
        return cached_features(encoder, loader, settings['dataset'], cache, title, target)

    if dataset.validates:
        fit, validation = features('fit'), features('validation')
        train = np.concatenate([fit[0], validation[0]]), np.concatenate([fit[1], validation[1]])
        held_out = np.arange(len(fit[1]), len(train[1]))
    else:  # the draw of LabelSubset, without reading the images twice
        train = features('train')
        held_out = stratified_subset(train[1], VALIDATION_SHARE, seed)
    test = features('test')
    with Console().status(f'{dataset.title}: logistic regressions'):
        found = swept_linear_probe(
            train,
            test,
            held_out=held_out,
            metric=CLASS_METRICS[dataset.metrics[0]],
            device=next(encoder.model.parameters()).device,
        )
    settings: dict[str, Value] = dict(
        prepared(encoder),
        penalty=found.penalty,
        validation=round(100 * max(found.validation), 4),
        train_images=len(train[1]),
        test_images=len(test[1]),
    )
    values = {name: CLASS_METRICS[name](found.predicted, test[1]) for name in dataset.metrics}
    return results_of(dataset, PROTOCOL, values, settings)


def results_of(
    dataset: TransferDataset, protocol: str, values: dict[str, float], settings: dict[str, Value]
) -> list[Result]:
    """Results from shares in [0, 1]."""
    scored = ('transfer', dataset.title, dataset.test, PRETRAINED, protocol)
    return [Result(*scored, metric, round(100 * v, 4), settings) for metric, v in values.items()]


@dataclass(frozen=True)
class _Targets:
    """Converts a VOC image to (K,) targets of ``one_vs_rest``, for K classes."""

    classes: int

    def __call__(self, sample: DataSample) -> Target:
        targets = np.zeros(self.classes, dtype=np.int64)
        targets[sample.get('gt_label_difficult', [])] = -1
        targets[sample.gt_label.tolist()] = 1  # last, for classes with both kinds of objects
        return targets
