"""The ImageNet config trains alike from a folder, tar shards, Parquet and LMDB."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmengine.runner.runner
import numpy as np
import pytest
import torch
from helpers.processes import free_port, launched, run_ranks
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from simclr_mm.commands.command_line import data_folder
from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import sampler as sampler_module
from simclr_mm.engine import Runner, build_runner
from simclr_mm.engine.dataloaders import build_train_dataloader
from simclr_mm.engine.options import merge_cfg_options

pytest.importorskip('webdataset')
pytest.importorskip('datasets')
pytest.importorskip('lmdb')
CONFIG = Path(__file__).parents[1] / 'configs/simclr_r50_16xb256-coslr-200e_in1k.py'
IMAGES, BATCH, SEED, EPOCHS = 26, 3, 7, 2
SOURCES = ('folder', 'tar', 'parquet', 'lmdb')


def tiny_config(data, workers):
    """The config as tools/train.py --data makes it, with device augmentation."""
    cfg = Config.fromfile(CONFIG)
    data_folder.train_on_folder(cfg, str(data))
    merge_cfg_options(
        cfg,
        {
            'model.backbone.depth': 18,
            'model.backbone.stem_channels': 8,
            'model.backbone.base_channels': 8,
            'train_dataloader.batch_size': BATCH,
            'train_dataloader.num_workers': workers,
            'train_dataloader.persistent_workers': workers > 0,
            'train_dataloader.dataset.pipeline.1.size': 32,
            'train_dataloader.dataset.pipeline.1.augment': 'device',
            'train_cfg.max_epochs': EPOCHS,
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
            'randomness.seed': SEED,
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.by_epoch': False,
            'default_hooks.checkpoint.interval': 3,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'visualizer.vis_backends': [dict(type='LocalVisBackend')],
        },
    )
    return cfg


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """The same photographs as a folder and packed."""
    root = tmp_path_factory.mktemp('sources')
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        noise = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = cv2.resize(noise, (90 - i, 60 + i), interpolation=cv2.INTER_CUBIC)
        path = root / 'folder' / f'class {i % 4}' / f'{i:02d}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.jpg', image)[1].tobytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SIMCLR_MM_HOME', str(root / 'home'))
        patch.setattr('datasets.config.HF_DATASETS_CACHE', root / 'cache')
        for kind in SOURCES[1:]:
            pack_folder(root / 'folder', root / kind, PackSettings(kind, shard_images=6))
        yield root


# --- What the encoder sees, batch by batch -------------------------------------------


def loaders(cfg, world_size, monkeypatch):
    """The training dataloader of each rank, as the loop builds it."""
    result = []
    for rank in range(world_size):
        monkeypatch.setattr(sampler_module, 'get_dist_info', lambda: (rank, world_size))
        runner = SimpleNamespace(
            _randomness_cfg={},
            build_dataloader=Runner.build_dataloader,
            seed=SEED,
            world_size=world_size,
            logger=logging.getLogger('simclr_mm.test'),
            model=torch.nn.Module(),
        )
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            result.append(build_train_dataloader(runner, cfg.train_dataloader.copy()))
    return result


def epoch_of(loader, epoch, first=0):
    """For each step: image to digest of its crops and of the numbers drawn for the device."""
    loader.sampler.set_epoch(epoch, first * BATCH)
    steps = []
    for batch in loader:
        assert len(batch['inputs']) == 3  # of a ViewsToMake
        digests = [digest(parts) for parts in zip(*batch['inputs'])]
        rows = [int(sample.sample_idx) for sample in batch['data_samples']]
        steps.append(dict(zip(rows, digests)))
    return steps


def digest(parts):
    return hashlib.sha256(b''.join(np.asarray(part).tobytes() for part in parts)).digest()


@pytest.fixture(scope='module')
def views(sources):
    """Image to digest of its views in each epoch, from the folder, made one by one."""
    with pytest.MonkeyPatch.context() as patch:
        [loader] = loaders(tiny_config(sources / 'folder', 0), 1, patch)
    index = sampler_module.SampleIndex
    result = []
    for epoch in range(EPOCHS):
        made = {}
        for row in range(IMAGES):
            made[row] = digest(loader.dataset[index(row, SEED, epoch)]['inputs'])
        result.append(made)
    return result


@pytest.mark.parametrize(
    'source, world_size, workers',
    [
        *(('folder', 1, 0), ('folder', 3, 2), ('tar', 2, 2), ('tar', 3, 0)),
        *(('parquet', 1, 2), ('parquet', 2, 0), ('lmdb', 2, 2)),
    ],
)
def test_epochs_are_permutations_cut_to_whole_global_batches(
    sources, views, monkeypatch, caplog, source, world_size, workers
):
    caplog.set_level(logging.INFO)
    ranks = loaders(tiny_config(sources / source, workers), world_size, monkeypatch)
    steps = IMAGES // (BATCH * world_size)
    remainder = IMAGES - steps * BATCH * world_size
    assert f'{remainder} others left out in each epoch' in caplog.text
    left_out = []
    for epoch in range(EPOCHS):
        seen = [epoch_of(loader, epoch) for loader in ranks]
        assert {len(rank) for rank in seen} == {steps}
        order = torch.randperm(
            IMAGES, generator=torch.Generator().manual_seed(SEED + epoch)
        ).tolist()
        for step in range(steps):
            rows = [row for rank in seen for row in rank[step]]
            first = step * BATCH * world_size
            assert sorted(rows) == sorted(order[first : first + BATCH * world_size])
            for rank in seen:
                assert rank[step] == {row: views[epoch][row] for row in rank[step]}
        left_out.append(set(order[steps * BATCH * world_size :]))
        assert len(left_out[-1]) == remainder
    assert left_out[0] != left_out[1]
    rest = [epoch_of(loader, 1, first=1) for loader in ranks]  # resumed
    assert rest == [rank[1:] for rank in seen]


@pytest.mark.parametrize('world_size', [1, 3])
def test_the_order_of_shards_too(sources, views, monkeypatch, world_size):
    cfg = tiny_config(sources / 'tar', 2)
    cfg.train_dataloader.sampler.shards_at_once = 2
    ranks = loaders(cfg, world_size, monkeypatch)
    left_out = []
    for epoch in range(EPOCHS):
        seen = [epoch_of(loader, epoch) for loader in ranks]
        rows = [row for rank in seen for step in rank for row in step]
        assert len(rows) == len(set(rows)) == IMAGES // (BATCH * world_size) * (BATCH * world_size)
        left_out.append(set(range(IMAGES)) - set(rows))
        for rank in seen:
            for step in rank:
                assert step == {row: views[epoch][row] for row in step}
    assert left_out[0] != left_out[1]
    assert [epoch_of(loader, 1, first=1) for loader in ranks] == [rank[1:] for rank in seen]


# --- The flag --data ------------------------------------------------------------------


def test_data_takes_packs_for_a_classifier(sources, tmp_path):
    for part, names in (('train', 'folder'), ('val', 'folder')):
        pack_folder(sources / names, tmp_path / 'in' / part, PackSettings('tar'))
    linear = CONFIG.parent / 'benchmarks' / 'r50_8xb512-linear-coslr-90e_in1k.py'
    cfg = Config.fromfile(linear)
    data_folder.train_on_folder(cfg, str(tmp_path / 'in'))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == 'simclr_mm.TarShards'
        assert loader.dataset.pipeline[0].type == 'simclr_mm.LoadImageFromFile'
    assert cfg.model.head.num_classes == 4
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = Runner.build_dataloader(cfg.val_dataloader, seed=0).dataset
    assert int(data[IMAGES - 1]['data_samples'].gt_label) == 3

    knn = Config.fromfile(CONFIG)
    data_folder.test_on_folder(knn, str(tmp_path / 'in'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = DATASETS.build(knn.test_dataloader.dataset)
    assert len(data) == 2 * IMAGES
    assert data[0]['inputs'].shape == (3, 224, 224)

    names = tmp_path / 'names'
    names.write_text('\n'.join(f'class {i}' for i in (1, 0, 2, 3)))
    pack_folder(
        sources / 'folder', tmp_path / 'in' / 'val', PackSettings('tar'), str(names), restart=True
    )
    with pytest.raises(ValueError, match='same classes in another order'):
        data_folder.train_on_folder(Config.fromfile(linear), str(tmp_path / 'in'))


def test_data_takes_urls_in_the_order_of_shards():
    cfg = Config.fromfile(CONFIG)
    data_folder.train_on_folder(cfg, 'https://example.org/pack')
    assert cfg.train_dataloader.dataset.type == 'simclr_mm.TarShards'
    assert cfg.train_dataloader.dataset.data_root == 'https://example.org/pack'
    assert cfg.train_dataloader.sampler.shards_at_once == 16


@pytest.mark.parametrize('url', ['hf://owner/name', 'https://example.org/a.parquet'])
def test_data_takes_tables_by_url(url):
    cfg = Config.fromfile(CONFIG)
    data_folder.train_on_folder(cfg, url)
    assert cfg.train_dataloader.dataset.type == 'simclr_mm.HuggingFaceImages'
    assert 'shards_at_once' not in cfg.train_dataloader.sampler


# --- Whole runs ----------------------------------------------------------------------


def train(data, work_dir, workers=0, resume=None, rank=0, world_size=1, port=None):
    """Train, in this process as one rank; losses by iteration are in the work dir."""
    torch.set_num_threads(1)
    cfg = tiny_config(data, workers)
    if world_size == 1:
        cfg.train_dataloader.dataset.indices = 14
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = '-'.join(work_dir.parts[-2:])  # MMEngine's: the second
    if resume is not None:
        cfg.resume, cfg.load_from = True, str(resume)
    if world_size > 1:
        mmengine.runner.runner.collect_env = dict  # calls compilers
        os.environ.update(launched(rank, world_size, port))
        cfg.launcher = 'pytorch'
    build_runner(cfg).train()


def train_ranks(data, work_dir, world_size, workers=0, resume=None):
    """Train on so many processes."""
    run_ranks(_train_rank, world_size, data, work_dir, workers, resume, world_size, free_port())


def _train_rank(rank, data, work_dir, workers, resume, *job):
    train(data, work_dir, workers, resume, rank, *job)


def losses(work_dir):
    newest = max(Path(work_dir).glob('*/vis_data/scalars.json'))
    entries = map(json.loads, newest.read_text().splitlines())
    return {entry['step']: entry['loss'] for entry in entries if 'loss' in entry}


def resumed(work_dir, target, step):
    """Copy a checkpoint, so that the resumed run writes elsewhere."""
    target.mkdir()
    return shutil.copy(work_dir / f'iter_{step}.pth', target / f'iter_{step}.pth')


@pytest.fixture
def no_environment_report(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


def test_losses_do_not_depend_on_where_the_images_lie(sources, tmp_path, no_environment_report):
    train(sources / 'folder', tmp_path / 'folder')
    expected = losses(tmp_path / 'folder')
    assert sorted(expected) == list(range(1, 9))  # 4 steps in each epoch
    for source in ('tar', 'parquet'):
        middle = resumed(tmp_path / 'folder', tmp_path / source, step=6)
        train(sources / source, tmp_path / source, workers=2, resume=middle)
        rest = losses(tmp_path / source)
        assert rest == {step: expected[step] for step in (7, 8)}


def test_three_ranks_stopped_inside_an_epoch(sources, tmp_path):
    train_ranks(sources / 'folder', tmp_path / 'folder', 3)
    expected = losses(tmp_path / 'folder')
    assert sorted(expected) == [1, 2, 3, 4]  # 26 images, 9 in a global batch
    middle = resumed(tmp_path / 'folder', tmp_path / 'tar', step=3)
    train_ranks(sources / 'tar', tmp_path / 'tar', 3, workers=1, resume=middle)
    assert losses(tmp_path / 'tar') == {4: expected[4]}
