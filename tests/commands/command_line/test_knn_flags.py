"""What ``--val`` and ``--val-split`` train on, and what they compare."""

import cv2
import numpy as np
import pytest
from helpers import CONFIGS, DIGITS
from helpers.tools import tool
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from simclr_mm.commands import train
from simclr_mm.errors import UserError

LINEAR = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-linear-adam-100e_digits.py'
IMAGE = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty images in two classes, and a table of them: four patients, two splits."""
    rows = ['path,label,group,split']
    for i in range(20):
        path = tmp_path / 'photos' / ('cat' if i % 2 else 'dog') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)
        rows.append(f'{path},{i % 2},patient {i // 5},{"val" if i < 5 else "train"}')
    (tmp_path / 'table.csv').write_text('\n'.join(rows))
    (tmp_path / 'bare.csv').write_text('\n'.join(row.split(',')[0] for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(*argv, config=DIGITS):
    args = train.parse_args([str(config), *argv])
    cfg = Config.fromfile(config)
    train.enter_flags(cfg, args)
    return cfg


def numbers(dataset):
    infos = (dataset.get_data_info(row) for row in range(len(dataset)))
    return {int(info['img_path'].rpartition('/')[2].removesuffix('.png')) for info in infos}


def sets(cfg):
    """Numbers of the training images, of gallery and of queries, which can all be read."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        trained, compared = (
            DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('train', 'val')
        )
    assert len(compared) == len(compared.gallery) + len(compared.query)
    assert trained[0]['inputs'].ndim == 4 and compared[0]['inputs'].ndim == 3
    return numbers(trained), numbers(compared.gallery), numbers(compared.query)


ALL = set(range(20))


def test_a_share_of_the_images_is_held_out_and_not_trained_on(folder):
    cfg = config_of('--data', 'photos', '--val-split', '0.2')
    trained, gallery, query = sets(cfg)
    assert trained == gallery == ALL - query
    assert len(query) == 4 and len({i % 2 for i in query}) == 2
    assert cfg.val_evaluator.k == 16  # all of the gallery
    assert cfg.val_cfg is not None


def test_a_share_of_a_table_is_whole_groups(folder):
    trained, gallery, query = sets(config_of('--data', 'table.csv', '--val-split', '0.3'))
    assert trained == gallery == ALL - query
    assert len(query) == 5 and len({i // 5 for i in query}) == 1


def test_the_splits_of_a_table(folder):
    by_name = sets(config_of('--data', 'table.csv', '--val-split', 'val'))
    assert by_name == (set(range(5, 20)), set(range(5, 20)), set(range(5)))
    by_place = sets(config_of('--data', 'photos', '--val', 'table.csv'))
    assert by_place == (ALL, set(range(5, 20)), set(range(5)))


def test_a_labelled_folder_beside_the_training_images(folder):
    trained, gallery, query = sets(config_of('--data', 'bare.csv', '--val', 'photos'))
    assert trained == ALL and gallery | query == ALL and len(query) == 4
    (folder / 'parts').mkdir()
    (folder / 'parts' / 'train').symlink_to(folder / 'photos')
    (folder / 'parts' / 'test').symlink_to(folder / 'photos')
    assert sets(config_of('--data', 'photos', '--val', 'parts')) == (ALL, ALL, ALL)


def test_without_data_the_configs_own_images_are_trained_on(folder):
    cfg = config_of('--val', 'photos')
    assert cfg.train_dataloader == Config.fromfile(DIGITS).train_dataloader
    assert cfg.val_dataloader.dataset.query.places == ['photos']


@pytest.mark.parametrize(
    'argv, match',
    [
        (['--val-split', '0.1'], '--val-split divides the images of --data: name them'),
        (['--data', 'photos', '--val-split', '1.5'], '1.5: give a share between 0 and 1'),
        (['--data', 'photos', '--val-split', '0.1', '--val', 'photos'], 'exclude each other'),
        (['--data', 'photos', '--val-split', '0.1', '--no-validate'], '--no-validate excludes'),
        (['--data', 'table.csv', '--val-split', 'test'], r"split 'test' \(15 train, 5 val\)"),
        (['--data', 'photos', '--val', 'bare.csv'], 'no image has a class'),
    ],
)
def test_what_cannot_be_compared(folder, argv, match):
    with pytest.raises(UserError, match=match):
        config_of(*argv)


def test_a_classifier_has_its_own_validation(folder):
    with pytest.raises(UserError, match='--val is for pretraining'):
        config_of('--val', 'photos', config=LINEAR)


def test_without_labels_held_out_images_are_measured_in_views(folder):
    cfg = config_of('--data', 'bare.csv', '--val-split', '0.2')
    assert cfg.val_evaluator.type == 'simclr_mm.LabelFreeMetrics' and cfg.val_cfg is not None
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        trained, measured = (
            DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('train', 'val')
        )
    assert numbers(trained) == ALL - numbers(measured) and len(measured) == 4
    assert trained[0]['inputs'].shape == measured[0]['inputs'].shape == (2, 3, 16, 16)


@pytest.mark.slow
def test_a_run_without_labels_logs_rank_and_alignment(folder):
    options = ['--cfg-options', 'train_dataloader.batch_size=8', 'train_cfg.max_epochs=1']
    options += ['train_cfg.val_interval=1', 'param_scheduler=[]', 'val_dataloader.num_workers=0']
    options += ['val_dataloader.persistent_workers=False']
    work = ['--work-dir', 'work']
    tool('train.py', DIGITS, '--data', 'bare.csv', '--val-split', '0.4', *work, *options)
    log = next((folder / 'work').glob('*/vis_data/scalars.json')).read_text()
    assert 'label_free/effective_rank' in log and 'label_free/alignment' in log


def test_a_held_out_image_that_is_missing_is_said_before_the_training(folder):
    (folder / 'photos' / 'dog' / '2.png').unlink()
    with pytest.raises(UserError, match='--val-split: 1 of 5 held-out images are not there, the'):
        config_of('--data', 'table.csv', '--val-split', 'val')
    with pytest.raises(UserError, match='held-out images are not there'):
        config_of('--data', 'bare.csv', '--val-split', '0.95')


def test_one_image_is_none_to_compare(folder):
    with pytest.raises(UserError, match='holds one image out, and there is none to compare'):
        config_of('--data', 'bare.csv', '--val-split', '0.04')


def test_a_config_without_validation_has_none_to_replace(folder):
    cfg = Config.fromfile(DIGITS)
    cfg.val_dataloader = None
    args = train.parse_args([str(DIGITS), '--data', 'bare.csv', '--val-split', '0.4'])
    with pytest.raises(UserError, match='--val-split: the config has no val_dataloader'):
        train.enter_flags(cfg, args)


def test_packs_are_compared(folder):
    pytest.importorskip('webdataset')
    for part in ('train', 'val'):
        tool('pack.py', 'photos', folder / 'packed' / part, '--processes', 1)
    cfg = config_of('--data', 'packed/train', '--val', 'packed')
    assert cfg.val_dataloader.dataset.query.type == 'simclr_mm.TarShards'
