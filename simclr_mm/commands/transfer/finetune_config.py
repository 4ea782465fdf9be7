"""The config for fine-tuning a pretrained encoder on another dataset.

Source: SimCLR, arXiv:2002.05709, Sec. B.8.1.

n images, S side in pixels, C feature width.
"""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands.command_line import build_dataset
from simclr_mm.datasets.nested import with_pipeline
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import CONFIGS

from .dataset_table import LOADING, Part, TransferDataset, class_count
from .linear import test_pipeline

_RUNTIME = CONFIGS / '_base_' / 'default_runtime.py'
BORDER = 256 / 224  # images are resized to 256 pixels and cropped to 224

# The metric of an mmpretrain classifier, and its name in the log.
LOGGED = dict(
    top1=(dict(type='Accuracy', topk=(1,)), 'accuracy/top1'),
    mean_per_class=(dict(type='simclr_mm.MeanPerClass'), 'mean_per_class/accuracy'),
    voc07_map=(dict(type='simclr_mm.VOC07MeanAP'), 'voc07/mAP'),
)


class Training(NamedTuple):
    """How each network is trained."""

    steps: int = 20000  # the paper's
    batch: int = 256  # images in a step; fewer if the dataset is smaller
    workers: int = 4  # processes that read images; arrays need none
    seed: int = 0  # of the head's weights and of the order and crops of images


def save_backbone(encoder: Encoder, file: Path) -> None:
    """Write the initial weights of fine-tuning."""
    state = encoder.model.backbone.state_dict()
    with atomic_file(file) as opened:
        torch.save(dict(state_dict={f'backbone.{k}': v for k, v in state.items()}), opened)


def finetune_config(
    encoder: Encoder,
    weights: Path,
    dataset: TransferDataset,
    train: Part,
    scored: Part,
    training: Training,
) -> Config:
    """The config that trains on one part of a dataset and scores another part."""
    images = build_dataset(train)
    batch = min(training.batch, len(images))
    workers = 0 if dataset.in_memory else training.workers
    augmented: list[dict] = [
        *([] if dataset.in_memory else [LOADING]),
        dict(type='RandomResizedCrop', scale=encoder.preprocessing.size, backend='pillow'),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ]
    loader: dict[str, Any] = dict(
        num_workers=workers, persistent_workers=workers > 0, collate_fn=dict(type='default_collate')
    )
    cfg = Config.fromfile(_RUNTIME)
    cfg.merge_from_dict(
        dict(
            _classifier(encoder, weights, dataset, class_count(images), len(images) // batch),
            train_dataloader=dict(
                loader,
                batch_size=batch,
                drop_last=True,  # else a few images would make a whole step
                sampler=dict(type='simclr_mm.ResumableSampler'),
                dataset=with_pipeline(train, augmented),
            ),
            val_dataloader=dict(
                loader,
                batch_size=training.batch,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=with_pipeline(scored, test_pipeline(dataset, encoder)),
            ),
            val_evaluator=[LOGGED[name][0] for name in dataset.metrics],
            val_cfg=dict(),
            **_schedule(training),
        )
    )
    return cfg


def _classifier(
    encoder: Encoder, weights: Path, dataset: TransferDataset, classes: int, steps_per_epoch: int
) -> dict[str, Any]:
    """Model and preprocessor: a linear layer on the pooled features."""
    backbone = encoder.config.model.backbone.to_dict()
    backbone.pop('frozen_stages', None)  # a setting of linear benchmarks
    backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(weights), prefix='backbone.')
    if _has_batch_norm(encoder):
        # The paper's max(1 - 10 / s, 0.9) is the weight of the old statistics, PyTorch's
        # momentum that of the new ones.
        momentum = min(10 / steps_per_epoch, 0.1)
        norm = backbone.get('norm_cfg') or dict(type='BN', requires_grad=True)
        backbone['norm_cfg'] = dict(norm, momentum=momentum)
    shape = encoder.feature_shape()
    if len(shape) not in (2, 4):
        raise UserError(
            f'fine-tuning: the backbone gives {tuple(shape)}, no map and no vector: '
            "for a transformer set model.backbone.out_type='cls_token' in --config"
        )
    head: dict[str, Any] = dict(type='LinearClsHead', topk=(1,))
    if dataset.multi_label:
        head = dict(
            type='MultiLabelLinearClsHead', loss=dict(type='CrossEntropyLoss', use_sigmoid=True)
        )
    preparing = encoder.preprocessing
    mean, std = ([255 * v for v in values] for values in (preparing.mean, preparing.std))
    return dict(
        model=dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling') if len(shape) == 4 else None,
            head=dict(head, num_classes=classes, in_channels=shape[1]),
        ),
        data_preprocessor=dict(num_classes=classes, mean=mean, std=std, to_rgb=True),
    )


def _has_batch_norm(encoder: Encoder) -> bool:
    """Whether the backbone has batch norm, and a setting for it."""
    backbone = encoder.model.backbone
    norms = (nn.modules.batchnorm._NormBase,)
    if not any(isinstance(module, norms) for module in backbone.modules()):
        return False
    for kind in type(backbone).__mro__:
        constructor = vars(kind).get('__init__')
        if constructor and 'norm_cfg' in inspect.signature(constructor).parameters:
            return True
    print_log(
        f'fine-tuning: {type(backbone).__name__} has no norm_cfg, so its batch norm keeps its '
        "momentum instead of the paper's",
        'current',
    )
    return False


def _schedule(training: Training) -> dict[str, Any]:
    """SGD with Nesterov momentum. Each cell sets rate and decay."""
    steps = training.steps
    return dict(
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.0, momentum=0.9, nesterov=True, weight_decay=0.0),
        ),
        # The paper names no schedule. This is its schedule for pretraining.
        param_scheduler=[dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False)],
        train_cfg=dict(type='simclr_mm.IterBasedTrainLoop', max_iters=steps, val_interval=steps),
        custom_hooks=[dict(type='simclr_mm.PretrainedBackboneHook', frozen=False)],
        default_hooks=dict(
            logger=dict(log_metric_by_epoch=False),
            checkpoint=dict(by_epoch=False, interval=max(1, steps // 4), max_keep_ckpts=1),
        ),
        log_processor=dict(by_epoch=False),
        randomness=dict(seed=training.seed),
    )
