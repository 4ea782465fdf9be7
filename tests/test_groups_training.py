"""A run with groups: in the loss, as positives and in the sampler."""

import cv2
import numpy as np
import pytest
from digits_run import DIGITS, EVERY_ITERATION, losses, runner
from mmengine.config import Config


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Forty images of ten patients."""
    folder = tmp_path_factory.mktemp('scans')
    rng = np.random.default_rng(0)
    for i in range(40):
        cv2.imwrite(str(folder / f'{i}.png'), rng.integers(256, size=(12, 12, 3), dtype=np.uint8))
    rows = [f'{i}.png,patient {i // 4}' for i in range(40)]
    (folder / 'table.csv').write_text('\n'.join(['path,group', *rows]))
    return str(folder / 'table.csv')


def run(work_dir, table, workers=0, **options):
    views = Config.fromfile(DIGITS).train_dataloader.dataset.pipeline[0].to_dict()
    dataset = dict(
        type='simclr_mm.ImageList',
        places=[table],
        positives='group',
        pipeline=[dict(type='simclr_mm.LoadImageFromFile'), views, dict(type='PackInputs')],
    )
    run = runner(
        work_dir,
        **{
            'train_dataloader.dataset.indices': None,
            'train_dataloader.dataset': dict(dataset, _delete_=True),
            'train_dataloader.num_workers': workers,
            'train_dataloader.sampler.groups': 'apart',
            'model.head.groups': True,
            'train_cfg.max_epochs': 2,
            **EVERY_ITERATION,
            **options,
        },
    )
    run.train()
    return losses(run)


def test_workers_and_a_stop_change_nothing(tmp_path, table):
    whole = run(tmp_path / 'whole', table)
    assert len(whole) == 4
    assert run(tmp_path / 'workers', table, workers=2) == whole
    saved = str(tmp_path / 'whole' / 'iter_3.pth')
    resumed = run(tmp_path / 'resumed', table, resume=True, load_from=saved)
    assert resumed == {4: whole[4]}
