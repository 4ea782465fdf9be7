"""What ``--data`` reads, and what it says about the rest."""

import os
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from helpers.tools import refusal
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from simclr_mm.apis import get_model
from simclr_mm.commands import train
from simclr_mm.commands.command_line.data_folder import compare, gallery_and_query, train_on_folder
from simclr_mm.commands.command_line.data_folder import test_on_folder as data_of_test
from simclr_mm.errors import UserError

CONFIGS = Path(__file__).parents[3] / 'configs'
DIGITS = CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
LINEAR_DIGITS = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-linear-adam-100e_digits.py'
IMAGE = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)


@pytest.fixture
def folders(tmp_path):
    write(*(tmp_path / 'a' / f'{i}.png' for i in range(3)))
    write(*(tmp_path / 'b' / 'deep' / f'{i}.webp' for i in range(2)))
    return tmp_path


def images(*places):
    """Paths of the images that pretraining reads with ``--data PLACES``."""
    cfg = Config.fromfile(DIGITS)
    train_on_folder(cfg, *map(str, places))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset[len(dataset) - 1]['inputs'] is not None  # it can be read
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def refused(function, *args):
    with pytest.raises(UserError) as error:
        function(*args)
    assert '\n' not in str(error.value)
    return str(error.value)


CIFAR = dict(type='CIFAR10', pipeline=[dict(type='PackInputs')])


@pytest.mark.parametrize('inside', [False, True])
def test_files_in_place_of_rgb_in_memory_become_rgb(tmp_path, inside):
    """mmpretrain's CIFAR is RGB in memory, files are read as BGR."""
    write(*(tmp_path / 'test' / name / '0.png' for name in ('cat', 'dog')))
    cfg = Config.fromfile(LINEAR_DIGITS)
    settings = cfg.pop('data_preprocessor')
    settings.to_rgb = False
    (cfg.model if inside else cfg)['data_preprocessor'] = settings
    data_of_test(cfg, str(tmp_path))
    kept = (cfg.model if inside else cfg).data_preprocessor
    assert not kept.to_rgb and kept.num_classes == 2  # ours are BGR already
    cfg.test_dataloader.dataset = dict(type='LabelSubset', dataset=CIFAR)
    data_of_test(cfg, str(tmp_path))
    assert kept.to_rgb


def test_training_images_in_memory_stay_rgb_beside_files(tmp_path):
    write(*(tmp_path / part / name / '0.png' for part in ('train', 'val') for name in 'ab'))
    cfg = Config.fromfile(DIGITS)
    cfg.data_preprocessor.to_rgb = False
    cfg.train_dataloader.dataset = dict(CIFAR)
    both = dict(type='simclr_mm.GalleryAndQuery', gallery=dict(CIFAR), query=dict(CIFAR))
    cfg.val_dataloader.dataset = dict(both, pipeline=CIFAR['pipeline'])
    parts = gallery_and_query('--val', tmp_path)
    assert '--val: files are read as BGR' in refused(
        compare, cfg, '--val', 'val_dataloader', *parts
    )
    assert not cfg.data_preprocessor.to_rgb


def test_top_k_as_one_number(tmp_path):
    write(*(tmp_path / 'test' / name / '0.png' for name in ('cat', 'dog')))
    cfg = Config.fromfile(LINEAR_DIGITS)
    for topk, kept in ((1, [1]), (5, [1]), ((1, 5), [1])):
        cfg.test_evaluator = dict(type='Accuracy', topk=topk)
        data_of_test(cfg, str(tmp_path))
        assert cfg.test_evaluator.topk == kept


def test_a_classifier_is_tested_on_its_own_classes(tmp_path):
    write(*(tmp_path / 'test' / name / '0.png' for name in ('cat', 'dog')))
    cfg = Config.fromfile(LINEAR_DIGITS)
    for trained in (None, ('cat', 'dog')):
        data_of_test(cfg, str(tmp_path), trained)
    said = refused(data_of_test, cfg, str(tmp_path), ('cat', 'horse'))
    assert f'the checkpoint and {tmp_path}/test have different classes: dog, horse' in said
    said = refused(data_of_test, cfg, str(tmp_path), ('dog', 'cat'))
    assert 'the same classes in another order' in said


def test_folders_of_other_names_count_in_their_order(tmp_path):
    """As ImageNet's, which are WordNet's numbers."""
    write(*(tmp_path / 'val' / name / '0.png' for name in ('n01440764', 'n01443537')))
    cfg = Config.fromfile(LINEAR_DIGITS)
    with patch('simclr_mm.commands.command_line.data_folder.print_log') as said:
        data_of_test(cfg, str(tmp_path), ('tench, Tinca tinca', 'goldfish'))
    assert 'n01440764 is tench, Tinca tinca, n01443537 is goldfish' in str(said.call_args)


def test_the_checkpoint_of_a_classifier_names_its_classes(tmp_path):
    write(*(tmp_path / 'test' / name / '0.png' for name in ('cat', 'dog')))
    model = get_model(str(LINEAR_DIGITS), backbone=dict(base_channels=8))
    meta = dict(dataset_meta=dict(classes=('cat', *'012345678')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'a.pth')
    said = refusal('test.py', LINEAR_DIGITS, tmp_path / 'a.pth', '--data', tmp_path)
    assert 'the checkpoint and' in said and 'have different classes' in said


@pytest.mark.parametrize('part', ['train', 'val'])
def test_a_missing_part_names_the_flag_that_was_given(tmp_path, part):
    write(tmp_path / part / 'cat' / '0.png')
    said = refused(gallery_and_query, '--val', tmp_path)
    assert said.startswith('--val') and '--data' not in said


def test_several_folders(folders):
    a, b = folders / 'a', folders / 'b'
    both = [str(path) for path in (*sorted(a.iterdir()), *sorted((b / 'deep').iterdir()))]
    assert images(a, b) == both
    assert images(b, a) == both[3:] + both[:3]
    assert images(a, folders, a) == both  # each file once


def test_lists_of_paths(folders):
    names = ['a/2.png', 'b/deep/1.webp', str(folders / 'a' / '0.png')]
    expected = [os.path.join(folders, name) for name in names]
    (folders / 'list.txt').write_text('\n'.join(names) + '\n\n')
    assert images(folders / 'list.txt') == expected
    (folders / 'dos.TXT').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(names).encode())
    assert images(folders / 'dos.TXT') == expected
    (folders / 'bare.csv').write_text('\n'.join(f'"{name}",3' for name in names))
    assert images(folders / 'bare.csv') == expected
    rows = ''.join(f'{i},{name}\n' for i, name in enumerate(names))
    (folders / 'named.csv').write_text('label,path\n' + rows)
    assert images(folders / 'named.csv') == expected
    assert images(folders / 'b', folders / 'list.txt') == [
        str(folders / 'b' / 'deep' / '0.webp'),
        str(folders / 'b' / 'deep' / '1.webp'),
        expected[0],
        expected[2],
    ]


def test_names_in_lists_are_what_the_file_system_holds(tmp_path):
    names = [os.fsdecode(name) for name in (b' K\xe4se.png', b'$a,b.png', b'a"b.png')]
    write(*(tmp_path / name for name in names))
    (tmp_path / 'list.txt').write_bytes(b'\n'.join(map(os.fsencode, names)))
    assert images(tmp_path / 'list.txt') == [str(tmp_path / name) for name in names]


def test_a_wrong_list(folders):
    for name, text, message in (
        ('empty.txt', '\n \n', 'empty.txt names no image: write one path a line'),
        ('wrong.txt', 'nowhere.png', "the first path in it is no file: '.*nowhere.png'"),
        ('huge.csv', 'path\n' + 'x' * 200000, 'huge.csv is no table of paths: field larger'),
        ('head.csv', 'file,label\na/0.png,1', 'in a .csv file name their column path'),
    ):
        (folders / name).write_text(text)
        with pytest.raises(UserError, match=message):
            images(folders / name)
    with pytest.raises(UserError, match='there is no folder .*/no.txt'):
        images(folders / 'no.txt')


@pytest.mark.parametrize('function', [train_on_folder, data_of_test])
@pytest.mark.parametrize(
    'place, message',
    [
        ('', '--data is empty. Name a folder.'),
        ('nowhere', 'there is no folder'),
        ('photos.zip', 'photos.zip is a file, which is not supported here. Give a folder, unpack'),
        ('shard.tar', 'Give the folder in which it lies.'),
        ('a/*.png', 'is a pattern, which is not supported. Give folders, or write the paths'),
    ],
)
def test_what_is_not_read_says_what_to_do(folders, monkeypatch, function, place, message):
    monkeypatch.chdir(folders)
    for name in ('photos.zip', 'shard.tar'):
        Path(name).write_bytes(b'no matter')
    assert message in refused(function, Config.fromfile(DIGITS), place)


def test_what_only_pretraining_reads(folders):
    linear = Config.fromfile(LINEAR_DIGITS)
    assert 'a classifier takes one folder' in refused(train_on_folder, linear, 'a', 'b')
    url = 'https://example.org/pack'
    assert 'Only pretraining reads shards by URL' in refused(train_on_folder, linear, url)
    (folders / 'list.txt').write_text('a/0.png')
    assert 'is a file' in refused(train_on_folder, linear, str(folders / 'list.txt'))


def test_shards_are_read_alone(folders):
    (folders / 'c').mkdir()
    (folders / 'c' / 'x.tar').write_bytes(b'')
    said = refused(train_on_folder, Config.fromfile(DIGITS), str(folders / 'a'), str(folders / 'c'))
    assert f'{folders}/c holds shards, which cannot be combined' in said


def test_a_config_without_the_part(folders):
    cfg = Config.fromfile(DIGITS)
    cfg.test_dataloader = None
    for name in ('train', 'val'):
        write(folders / name / 'x' / '0.png')
    assert 'has no test_dataloader' in refused(data_of_test, cfg, str(folders))
    cfg = Config.fromfile(DIGITS)
    cfg.test_dataloader.dataset = dict(type='ImageNet', pipeline=[])
    assert 'test_dataloader.dataset is ImageNet' in refused(data_of_test, cfg, str(folders))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[])
    assert 'ConcatDataset of the config has no pipeline' in refused(
        train_on_folder, cfg, str(folders)
    )


@pytest.mark.parametrize('config', [DIGITS, LINEAR_DIGITS], ids=lambda path: path.stem)
def test_every_ending_and_no_hidden_folder_in_labelled_folders(tmp_path, config):
    """Webp images count as others do; our cache's folder is no class."""
    for part in ('train', 'val'):
        for name in ('cat', 'dog', '.simclr_mm_cache'):
            write(*(tmp_path / part / name / f'{i}.{"webp" if i else "PNG"}' for i in range(3)))
    cfg = Config.fromfile(config)
    data_of_test(cfg, str(tmp_path))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    queries = getattr(dataset, 'query', dataset)
    assert queries.metainfo['classes'] == ('cat', 'dog')
    assert queries.get_gt_labels().tolist() == [0, 0, 0, 1, 1, 1]
    if config == LINEAR_DIGITS:
        assert cfg.model.head.num_classes == 2


def test_the_flag_takes_several_and_leaves_the_config():
    args = train.parse_args(['x.py', '--data', 'a', 'b', '--amp'])
    assert (args.config, args.data) == ('x.py', ['a', 'b'])
    args = train.parse_args(['--data', 'a', 'x.py'])
    assert (args.config, args.data) == ('x.py', ['a'])
    with pytest.raises(SystemExit):
        train.parse_args(['--data', 'a', 'b'])
    with pytest.raises(SystemExit):
        train.parse_args([])
