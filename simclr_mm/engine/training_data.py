"""Replace the images of a config, and keep its views."""

from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from simclr_mm.cores import core_count
from simclr_mm.datasets.nested import innermost
from simclr_mm.errors import UserError
from simclr_mm.registry import type_name
from simclr_mm.transforms.loading import LOADING_STEPS

_LOADING = 'simclr_mm.LoadImageFromFile'
_IN_MEMORY = 'simclr_mm.ArrayFile'


def train_unlabelled(cfg: Config, dataset: dict[str, Any], keep_validation: bool = False) -> None:
    """Pretrain on the images of a dataset, given as a config without a pipeline.

    There are no labels, so the online probe is removed, and validation too unless it is kept.
    """
    replace_images(cfg.train_dataloader, dataset)
    if not keep_validation:
        remove_validation(cfg)
    if cfg.model.pop('online_probe', None):
        print_log('no online probe, for want of labels')


def remove_validation(cfg: Config) -> None:
    """Train without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def keep_largest_views(dataset: ConfigDict) -> None:
    """Let views that grow have their last size from the beginning."""
    for inner in (*dataset.get('datasets', ()), dataset.get('dataset')):
        if inner is not None:
            keep_largest_views(inner)
    for step in dataset.get('pipeline') or ():
        if step.get('milestones'):
            step.size, step.milestones = max(step.size), []


def replace_images(loader: ConfigDict, dataset: dict[str, Any]) -> None:
    """Give a dataloader another dataset behind the same pipeline.

    Wrappers of the dataset, such as a LabelSubset, stay.
    """
    around = loader
    while 'dataset' in around.dataset:
        around = around.dataset
    before = around.dataset
    if 'pipeline' not in before:
        raise UserError(
            f'a {type_name(before)} of the config has no pipeline to reuse for other images: '
            'write your folder into the config.'
        )
    if dataset['type'] == _IN_MEMORY:
        steps = [step for step in before.pipeline if type_name(step) not in LOADING_STEPS]
        around.dataset = ConfigDict(**dataset, pipeline=steps, batched=before.get('batched', False))
        return
    if before.get('batched'):  # it was in memory, but files need workers
        loader.num_workers = min(4, core_count())
        loader.persistent_workers = True
    around.dataset = ConfigDict(**dataset, pipeline=with_loading(before.pipeline))


def rgb_in_memory(dataset: Any) -> bool:
    """Whether a dataset's images, or those of a GalleryAndQuery, are mmpretrain's CIFAR: RGB.

    Whatever reads files gives BGR.
    """
    kind = innermost(dataset.get('query', dataset)).get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, CIFAR10)


def with_loading(pipeline: list[ConfigDict]) -> list[ConfigDict]:
    """The pipeline with simclr_mm's loading step, for files and shards."""
    for step in pipeline:
        if type_name(step) == 'LoadBands':
            return pipeline
        if type_name(step) == 'LoadImageFromFile':  # mmcv's reads files only
            step['type'] = _LOADING
            return pipeline
    return [ConfigDict(type=_LOADING), *pipeline]  # in-memory data had none
