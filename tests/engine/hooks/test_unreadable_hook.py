"""A folder with broken files, through a real run."""

import cv2
import numpy as np
import pytest
from digits_run import runner

IMAGES, BROKEN = 40, 3


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        cv2.imwrite(str(tmp_path / f'{i:02}.jpg'), rng.integers(0, 255, (20, 20, 3)))
    for i in range(BROKEN):
        (tmp_path / f'{i:02}.jpg').write_bytes(b'this is no image')
    return tmp_path


def train(folder, work_dir, max_share):
    options = {
        'train_dataloader.dataset': dict(
            _delete_=True,
            type='simclr_mm.ImageFolder',
            data_root=str(folder),
            pipeline=[
                dict(type='simclr_mm.LoadImageFromFile'),
                dict(type='simclr_mm.TwoViews', size=16),
                dict(type='PackInputs'),
            ],
        ),
        'train_dataloader.batch_size': 10,
        'train_dataloader.num_workers': 2,
        'train_cfg.max_epochs': 2,
        'default_hooks.unreadable.max_share': max_share,
    }
    run = runner(work_dir, **options)
    try:
        run.train()
    finally:
        run.log = next(work_dir.glob('*/*.log')).read_text()
    return run


def test_broken_files_are_replaced_named_once_and_counted(folder, tmp_path_factory):
    run = train(folder, tmp_path_factory.mktemp('run'), max_share=0.2)
    assert run.iter == 8
    for i in range(BROKEN):
        assert run.log.count(f'{i:02}.jpg') == 1
    assert f'unreadable images replaced in this run: {BROKEN}.' in run.log


def test_too_many_broken_files_stop_the_run(folder, tmp_path_factory):
    with pytest.raises(RuntimeError, match='of 40 images could not be read, more than'):
        train(folder, tmp_path_factory.mktemp('run'), max_share=0.04)


def test_a_share_is_a_share(tmp_path):
    with pytest.raises(ValueError, match='max_share is 3'):
        runner(tmp_path, **{'default_hooks.unreadable.max_share': 3})
