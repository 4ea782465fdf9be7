"""A small SimCLR on digits, for tests that train: seconds a run."""

import copy
import json
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS

CONFIGS = Path(__file__).parents[1] / 'configs'
DIGITS = CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
# 70 images in batches of 16: 4 steps an epoch, 6 images left out.
SMALL = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.indices': 70,
    'train_cfg.max_epochs': 3,
    'param_scheduler.0.end': 1,
    'param_scheduler.1.begin': 1,
    'default_hooks.logger.interval': 1,
    'randomness.seed': 5,
    'auto_scale_lr': None,
    'log_level': 'WARNING',
}
BY_ITERATION = {
    'train_cfg': dict(
        _delete_=True, type='simclr_mm.IterBasedTrainLoop', max_iters=12, val_interval=100
    ),
    'param_scheduler': [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=4),
    ],
    'log_processor': dict(by_epoch=False),
}

EVERY_EPOCH = {
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.checkpoint.max_keep_ckpts': -1,
}
EVERY_ITERATION = {**EVERY_EPOCH, 'default_hooks.checkpoint.by_epoch': False}


def runner(work_dir, validate=False, **options):
    cfg = Config.fromfile(DIGITS)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = '-'.join(work_dir.parts[-2:])
    cfg.merge_from_dict(copy.deepcopy({**SMALL, **options}))
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return RUNNERS.build(cfg)


def losses(run):
    """The logged losses by iteration."""
    file = Path(run.log_dir) / 'vis_data' / 'scalars.json'
    entries = map(json.loads, file.read_text().splitlines())
    return {entry['step']: entry['loss'] for entry in entries if 'loss' in entry}
