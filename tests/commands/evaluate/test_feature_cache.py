"""What is kept is used again, and only for the very same features."""

import errno
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from simclr_mm.apis import build_encoder
from simclr_mm.apis.encoder import pipeline_of
from simclr_mm.commands.command_line import build_dataset
from simclr_mm.commands.command_line.values import cache_folder
from simclr_mm.commands.evaluate import cache
from simclr_mm.commands.evaluate.cache import cached_features
from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.commands.transfer.linear import _Targets
from simclr_mm.engine import Runner
from simclr_mm.evaluation.features import class_of

CONFIG = Path(__file__).parents[3] / 'configs' / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('ant', 'bee'):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                picture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / name / f'{i}.png'), picture)
    return root


@pytest.fixture(scope='module')
def built():
    return build_encoder(Config.fromfile(CONFIG))


@pytest.fixture
def encoder(built):
    """The same weights in every test."""
    torch.manual_seed(0)
    built.model.init_weights()
    return built


def setting(encoder, folder, size=16):
    cfg = Config.fromfile(CONFIG)
    dataset = cfg.test_dataloader.dataset
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=size)]
    dataset.pipeline = [*pipeline, dict(type='PackInputs')]
    dataset.gallery = dict(type='CustomDataset', data_root=str(folder / 'train'))
    dataset.query = dict(type='CustomDataset', data_root=str(folder / 'val'))
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    return replace(encoder, pipeline=pipeline_of(cfg)), loader, dataset


@pytest.fixture
def computed(monkeypatch):
    """Counts how often features are computed."""
    calls = []
    extract = cache.extract_features
    monkeypatch.setattr(
        cache, 'extract_features', lambda *args, **kw: calls.append(1) or extract(*args, **kw)
    )
    return calls


def test_used_again_for_the_same_alone(encoder, folder, tmp_path, computed):
    first = cached_features(*setting(encoder, folder), tmp_path, '')
    again = cached_features(*setting(encoder, folder), tmp_path, '')
    assert len(computed) == 1
    for one, other in zip(first, again):
        np.testing.assert_array_equal(one, other)

    weight = encoder.model.backbone.conv1.weight.data
    weight[0, 0, 0, 0] += 0.5  # other weights
    changed = cached_features(*setting(encoder, folder), tmp_path, '')
    weight[0, 0, 0, 0] -= 0.5
    assert len(computed) == 2 and not np.array_equal(changed[0], first[0])

    smaller = cached_features(*setting(encoder, folder, size=8), tmp_path, '')  # other transform
    assert len(computed) == 3 and not np.array_equal(smaller[0], first[0])

    image = folder / 'val' / 'bee' / '1.png'
    cv2.imwrite(str(image), np.zeros((16, 16, 3), np.uint8))  # another picture
    assert not np.array_equal(cached_features(*setting(encoder, folder), tmp_path, '')[0], first[0])
    image.rename(image.with_name('2.png'))  # another list of files
    cached_features(*setting(encoder, folder), tmp_path, '')
    assert len(computed) == 5


@pytest.mark.parametrize('damage', ['cut short', 'another key'])
def test_a_broken_or_foreign_file_is_computed_anew(encoder, folder, tmp_path, computed, damage):
    encoder, *data = setting(encoder, folder)
    first = cached_features(encoder, *data, tmp_path, '')
    (file,) = tmp_path.glob('*.npz')
    if damage == 'cut short':
        file.write_bytes(file.read_bytes()[:-200])
    else:
        np.savez(file, features=first[0] + 1, labels=first[1], key='{}')
    again = cached_features(encoder, *data, tmp_path, '')
    np.testing.assert_array_equal(again[0], first[0])
    assert len(computed) == 2


@pytest.mark.parametrize('kind', ['tar', 'parquet', 'lmdb', 'tar elsewhere', 'parquet elsewhere'])
@pytest.mark.parametrize('part', [False, True], ids=['all', 'some labels'])
def test_packs_are_told_apart_by_their_files(folder, tmp_path, monkeypatch, kind, part):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    data = dict(type='', data_root=str(tmp_path / 'pack'), pipeline=[])
    kind, _, elsewhere = kind.partition(' ')
    if elsewhere:
        one_file = '/shard-00000.parquet' if kind == 'parquet' else ''
        data['data_root'] = f'local://{tmp_path}/pack{one_file}'
    data['type'] = dict(tar='TarShards', parquet='HuggingFaceImages', lmdb='LMDBImages')[kind]
    data['type'] = f'simclr_mm.{data["type"]}'
    if part:
        data = dict(type='simclr_mm.LabelSubset', share=0.5, dataset=data)

    def packed(side):
        settings = PackSettings(kind, short_side=side)
        pack_folder(folder / 'train', tmp_path / 'pack', settings, restart=True)
        return cache.images_hash(build_dataset(data))

    first = packed(12)  # encoded anew, as the second one: the same names
    assert cache.images_hash(build_dataset(data)) == first  # opening a pack does not change it
    assert packed(8) != first


def test_images_in_memory_are_told_apart_by_content(encoder):
    cfg = Config.fromfile(CONFIG)
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    key = cache.feature_key(encoder, loader.dataset, {})
    loader.dataset.query.images[3, 2, 2, 0] ^= 1
    other = cache.feature_key(encoder, loader.dataset, {})
    assert {name for name in key if key[name] != other[name]} == {'images'}
    keys = [
        cache.feature_key(encoder, loader.dataset, {}, target)
        for target in (class_of, _Targets(3), _Targets(4))
    ]
    assert keys[0] == other and len({each['target'] for each in keys}) == 3


def test_images_in_memory_of_other_packages_are_told_apart_by_content():
    class InMemory(list):
        get_data_info = list.__getitem__

    first, other, longer = (
        cache.images_hash(InMemory([dict(img=np.full((2, 2, 3), value, np.uint8), gt_label=1)] * n))
        for value, n in ((0, 1), (1, 1), (0, 2))
    )
    assert len({first, other, longer}) == 3


def test_nothing_is_kept_unless_a_place_is_named(encoder, folder, computed, monkeypatch):
    for _ in range(2):
        cached_features(*setting(encoder, folder), None, '')
    assert len(computed) == 2
    monkeypatch.delenv('SIMCLR_MM_HOME', raising=False)
    assert cache_folder('') is None
    monkeypatch.setenv('SIMCLR_MM_HOME', '/x')
    assert cache_folder('') == Path('/x/features')


def test_a_full_disk_costs_the_cache_and_not_the_features(encoder, folder, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(cache.np, 'savez', full)
    features, labels = cached_features(*setting(encoder, folder), tmp_path / 'cache', '')
    assert len(features) == len(labels) == 8
    assert not list((tmp_path / 'cache').glob('*.npz'))
