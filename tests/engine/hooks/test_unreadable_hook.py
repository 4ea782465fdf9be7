"""A folder with broken files, through a real run."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from digits_run import runner

from simclr_mm.engine import UnreadableImageHook
from simclr_mm.errors import UserError

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
    with pytest.raises(UserError, match='of 40 images could not be read, more than'):
        train(folder, tmp_path_factory.mktemp('run'), max_share=0.04)


def test_images_that_a_transform_drops_are_counted_and_stop_nothing():
    lines = []
    hook = UnreadableImageHook(0)
    logger = SimpleNamespace(error=lines.append)
    loader = SimpleNamespace(sampler=range(4))
    run = SimpleNamespace(logger=logger, train_dataloader=loader, log_dir='logs')
    tries = [('', 'image 3: a transform dropped it'), ('', 'image 5: a transform dropped it')]
    hook.after_train_iter(run, 0, dict(data_samples=[{}, dict(unreadable=tries)]))
    hook.after_train_iter(run, 1, dict(data_samples=[dict(unreadable=tries), {}]))
    hook.after_train(run)
    assert lines == [
        'replaced by another, as all that follow: image 3: a transform dropped it',
        'images that a transform dropped, replaced in this run: 4.',
    ]


@pytest.mark.parametrize('share', [3, -0.1, float('nan'), '0.1', None])
def test_a_share_is_a_share(share):
    with pytest.raises(UserError, match='max_share is .*: give a share of the images'):
        UnreadableImageHook(share)


class Samples(dict):
    """A batch of which so many images could not be read, at the second try either."""

    def __init__(self, images, broken):
        tries = [('a.jpg', 'a.jpg: broken'), ('b.jpg', 'b.jpg: broken'), ('c.jpg', 'c.jpg: ...')]
        samples = [dict(unreadable=tries)] * broken + [{}] * (images - broken)
        super().__init__(data_samples=samples)


@pytest.mark.parametrize('share,stops', [(1, False), (0.65, False), (0.55, True), (0, True)])
def test_the_share_is_that_of_images_not_of_tries(share, stops):
    """60 of 100 images are broken, and each took three tries."""
    hook = UnreadableImageHook(share)
    logger = SimpleNamespace(error=lambda line: None)
    loader = SimpleNamespace(sampler=range(100))
    run = SimpleNamespace(logger=logger, train_dataloader=loader, log_dir='logs')
    try:
        for step in range(20):
            hook.after_train_iter(run, step, Samples(20, 12))
    except UserError as error:
        assert stops and 'of 100 images could not be read' in str(error)
    else:
        assert not stops and (hook.failed, hook.drawn) == (240, 400)
