"""The config of fine-tuning a pretrained encoder on another dataset.

Source: SimCLR, arXiv:2002.05709, Sec. B.8.1.

n images, K classes, S side in pixels, C feature width.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import MIM

from .dataset_table import LOADING, TransferDataset, build, class_count, with_pipeline
from .linear import test_pipeline

_RUNTIME = MIM / 'configs' / '_base_' / 'default_runtime.py'
BORDER = 256 / 224  # images are resized to 256 pixels and cropped to 224

# The metric of an mmpretrain classifier, and its name in the log.
LOGGED = dict(
    top1=(dict(type='Accuracy', topk=(1,)), 'accuracy/top1'),
    mean_per_class=(dict(type='SingleLabelMetric', items=('recall',)), 'single-label/recall'),
    voc07_map=(dict(type='simclr_mm.VOC07MeanAP'), 'voc07/mAP'),
)


class Training(NamedTuple):
    """How each network is trained.

    Args:
        steps: The paper's are 20,000.
        batch: Images in a step; fewer where the dataset is smaller.
        workers: Processes that read images; arrays need none.
        seed: Of the head's weights and of the order and crops of images.
    """

    steps: int = 20000
    batch: int = 256
    workers: int = 4
    seed: int = 0


class Encoder(NamedTuple):
    """What is fine-tuned.

    Args:
        backbone: Its config.
        weights: File of its weights, keys with the prefix ``backbone.``.
        width: C.
        pools: It gives a map (n, C, H, W) rather than (n, C).
        has_bn: It has batch normalization.
        preprocessing: Of test images; the training crops have its size.
    """

    backbone: dict
    weights: Path
    width: int
    pools: bool
    has_bn: bool
    preprocessing: Preprocessing


def encoder_of(model: BaseModel, preprocessing: Preprocessing, file: Path) -> Encoder:
    """Write the backbone of a model to a file, and note what a classifier needs.

    Raises:
        ValueError: The backbone gives neither a map nor a vector.
    """
    backbone = model.backbone
    with atomic_file(file) as opened:
        state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
        torch.save(dict(state_dict=state), opened)
    parameter = next(backbone.parameters())
    side = preprocessing.size
    with torch.no_grad():
        features = backbone(parameter.new_zeros(1, 3, side, side))[-1]
    if features.ndim not in (2, 4):
        raise UserError(
            f'fine-tuning: the backbone gives {tuple(features.shape)}, no '
            'map and no vector: for a transformer set '
            "model.backbone.out_type='cls_token' in --config"
        )
    settings = model._config.model.backbone.to_dict()
    settings.pop('frozen_stages', None)  # of a linear benchmark
    return Encoder(
        backbone=settings,
        weights=file.resolve(),
        width=features.shape[1],
        pools=features.ndim == 4,
        has_bn=any(isinstance(m, nn.modules.batchnorm._NormBase) for m in backbone.modules()),
        preprocessing=preprocessing,
    )


def finetune_config(
    encoder: Encoder, dataset: TransferDataset, train: dict, scored: dict, training: Training
) -> Config:
    """The config that trains on one part of a dataset and is scored on another.

    Args:
        encoder: From :func:`encoder_of`.
        dataset: How it is scored.
        train: The part to train on.
        scored: The part that the last validation scores.
        training: Steps, batch, seed.
    """
    images = build(train)
    batch = min(training.batch, len(images))
    loading = [] if dataset.in_memory else [LOADING]
    workers = 0 if dataset.in_memory else training.workers
    crops = [
        dict(type='RandomResizedCrop', scale=encoder.preprocessing.size, backend='pillow'),
        dict(type='RandomFlip', prob=0.5),
    ]
    loader = dict(
        num_workers=workers, persistent_workers=workers > 0, collate_fn=dict(type='default_collate')
    )
    pack = dict(type='PackInputs')
    cfg = Config.fromfile(_RUNTIME)
    cfg.merge_from_dict(
        dict(
            _classifier(encoder, dataset, class_count(images), len(images) // batch),
            train_dataloader=dict(
                loader,
                batch_size=batch,
                sampler=dict(type='simclr_mm.ResumableSampler'),
                dataset=with_pipeline(train, [*loading, *crops, pack]),
            ),
            val_dataloader=dict(
                loader,
                batch_size=training.batch,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=with_pipeline(scored, test_pipeline(dataset, encoder.preprocessing)),
            ),
            val_evaluator=[LOGGED[name][0] for name in dataset.metrics],
            val_cfg=dict(),
            **_schedule(training),
        )
    )
    return cfg


def _classifier(
    encoder: Encoder, dataset: TransferDataset, classes: int, steps_per_epoch: int
) -> dict:
    """Model and preprocessor: a linear layer on the pooled features."""
    backbone = dict(
        encoder.backbone,
        init_cfg=dict(type='Pretrained', checkpoint=str(encoder.weights), prefix='backbone.'),
    )
    if encoder.has_bn:
        # The paper's max(1 - 10 / s, 0.9) weighs the old statistics; PyTorch's momentum
        # weighs the new.
        momentum = min(10 / steps_per_epoch, 0.1)
        norm = backbone.get('norm_cfg') or dict(type='BN', requires_grad=True)
        backbone['norm_cfg'] = dict(norm, momentum=momentum)
    head = dict(type='LinearClsHead', topk=(1,))
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
            neck=dict(type='GlobalAveragePooling') if encoder.pools else None,
            head=dict(head, num_classes=classes, in_channels=encoder.width),
        ),
        data_preprocessor=dict(num_classes=classes, mean=mean, std=std, to_rgb=True),
    )


def _schedule(training: Training) -> dict:
    """SGD with Nesterov momentum; rate and decay are the cell's."""
    steps = training.steps
    return dict(
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.0, momentum=0.9, nesterov=True, weight_decay=0.0),
        ),
        # The paper names no schedule; this is its schedule of pretraining.
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
