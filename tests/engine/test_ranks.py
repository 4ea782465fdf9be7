"""Ranks with folders and settings of their own, as on machines that share no disk."""

import json
import os
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from digits_run import EVERY_EPOCH, losses, runner
from helpers.processes import free_port, launched, run_ranks, start

from simclr_mm.checkpoints import weights_hash
from simclr_mm.engine.ranks import on_first_rank, versions
from simclr_mm.engine.work_dir_lock import WorkDirLock
from simclr_mm.errors import UserError

OPTIONS = {**EVERY_EPOCH, 'launcher': 'pytorch', 'train_cfg.max_epochs': 2}
VALIDATED = {'train_cfg.val_interval': 1, 'val_dataloader.dataset.query.indices': 31}


def digest(run):
    """Of what the ranks share: the statistics of BN are each one's own on CPUs."""
    return weights_hash(dict(run.model.module.named_parameters()))


def refusal(folder, validate=False, **options):
    """The error that ends training, '' if there is none."""
    try:
        runner(folder, validate, **{**OPTIONS, **options}).train()
    except UserError as error:
        return str(error)
    return ''


def _rank(rank, port, folder):
    os.environ.update(launched(rank, 2, port))
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    mine = folder / f'machine{rank}'
    mine.mkdir()
    # Neither rank may write here.
    os.chdir('/proc')
    told = {}

    for name, key, values in (
        ('seed', 'randomness.seed', (1, 2)),
        ('one seed', 'randomness.seed', (None, 2)),
        ('rate', 'optim_wrapper.optimizer.lr', (0.1, 0.2)),
        ('images', 'train_dataloader.dataset.indices', (70, 69)),
        ('temperature', 'model.head.temperature', (0.1, 0.2)),
        ('workers', 'train_dataloader.num_workers', (0, 1)),
        ('log', 'default_hooks.logger.interval', (1, 2)),
        ('sync_bn', 'sync_bn', (None, 'torch')),
    ):
        told[name] = refusal(mine / 'refused', **{key: values[rank]})
    indices = {'val_dataloader.dataset.query.indices': 31 - rank}
    told['validation'] = refusal(mine / 'refused', validate=True, **{**VALIDATED, **indices})
    with patch('simclr_mm.engine.runner.versions', lambda: {'torch': f'2.{rank}'}):
        told['versions'] = refusal(mine / 'refused')

    run = runner(mine / 'a', validate=True, **OPTIONS, **VALIDATED)
    run.train()
    told['digest'] = digest(run)
    told['statistics'] = weights_hash(dict(run.model.module.named_buffers()))
    if rank == 0:
        file = Path(run.log_dir) / 'vis_data' / 'scalars.json'
        told['scores'] = [json.loads(line).get('knn/top1') for line in file.open()]
        told['saved'] = sorted(path.name for path in (mine / 'a').glob('*.pth'))
        told['losses'] = losses(run)

    # On the first machine alone.
    alone = str(mine / 'a' / f'epoch_{2 if rank == 0 else 9}.pth')
    told['alone'] = refusal(mine / 'g', resume=True, load_from=alone)
    # Both read, but not the same.
    epochs = str(folder / 'machine0' / 'a' / f'epoch_{rank + 1}.pth')
    told['epochs'] = refusal(mine / 'c', resume=True, load_from=epochs)
    told['weights'] = refusal(mine / 'd', load_from=epochs)
    # A shared disk. The second rank's own work dir does not matter.
    file = str(folder / 'machine0' / 'a' / 'epoch_1.pth')
    rest = runner(mine / 'e', **OPTIONS, resume=True, load_from=file)
    rest.train()
    told['rest'] = digest(rest)
    # Only the second machine holds an older run: rank 0 decides.
    if rank == 1:
        (mine / 'f').mkdir()
        (mine / 'f' / 'last_checkpoint').write_text(file)
    anew = runner(mine / 'f', **OPTIONS, resume=True)
    anew.train()
    told['anew'] = digest(anew)
    told['iter'] = anew.iter
    # Another run trains in the work dir that both share.
    while not (folder / 'held').exists():
        time.sleep(0.1)
    told['locked'] = refusal(folder / 'shared')
    (folder / f'{rank}.json').write_text(json.dumps(told))


def _hold(folder):
    (folder / 'shared').mkdir()
    with WorkDirLock(str(folder / 'shared'), None):
        (folder / 'held').write_text('')
        while not (folder / 'done').exists():
            time.sleep(0.1)


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    """What each rank was told."""
    folder = tmp_path_factory.mktemp('ranks')
    holder = start(_hold, folder)
    try:
        run_ranks(_rank, 2, free_port(), folder)
    finally:
        (folder / 'done').write_text('')
        holder.join()
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    'name, expected',
    [
        ('seed', 'rank 1 has randomness.seed = 2, rank 0 has 1: give every rank the same config.'),
        ('one seed', 'rank 1 has randomness.seed = 2, rank 0 has None: '),
        ('rate', 'rank 1 has optim_wrapper.optimizer.lr = 0.2, rank 0 has 0.1: '),
        ('images', 'rank 1 has train_dataloader.dataset.indices = 69, rank 0 has 70: '),
        # Hooks exchange numbers at steps that depend on these.
        ('workers', 'rank 1 has train_dataloader.num_workers = 1, rank 0 has 0: '),
        ('sync_bn', "rank 1 has sync_bn = 'torch', rank 0 has None: "),
        ('log', 'rank 1 has default_hooks.logger.interval = 2, rank 0 has 1: '),
        ('validation', 'rank 1 has images in val_dataloader.dataset = '),
        ('versions', "rank 1 has torch = '2.1', rank 0 has '2.0': install the same packages"),
        ('temperature', 'rank 1 has model.head.temperature = 0.2, rank 0 has 0.1: '),
    ],
)
def test_ranks_that_differ_are_named_on_every_rank(told, name, expected):
    assert told[0][name] == told[1][name] and told[0][name].startswith(expected)


def test_validation_needs_no_shared_folder(told):
    scores = [score for score in told[0]['scores'] if score is not None]
    assert len(scores) == 2 and min(scores) > 20  # chance: 10
    assert told[0]['saved'] == ['epoch_1.pth', 'epoch_2.pth']


def test_a_checkpoint_on_one_machine_alone_is_named(told):
    for rank in told:
        assert rank['alone'].startswith('rank 1 cannot load ')
        assert 'machine1/a/epoch_9.pth' in rank['alone']


def test_checkpoints_that_differ_are_named(told):
    for rank in told:
        assert rank['epochs'].startswith('rank 1 has epoch = 2, rank 0 has 1: ')
        assert rank['weights'].startswith('rank 1 has weights = ')
        assert rank['weights'].endswith('.pth has to be the same file on every rank.')


def test_all_ranks_resume_from_one_file(told):
    assert told[0]['rest'] == told[1]['rest'] == told[0]['digest']  # of the unbroken run


def test_rank_0_decides_that_there_is_nothing_to_resume(told):
    assert told[0]['anew'] == told[1]['anew'] == told[0]['digest']
    assert told[0]['iter'] == told[1]['iter'] == 4


def test_a_work_dir_in_use_is_said_on_every_rank(told):
    assert told[0]['locked'] == told[1]['locked']
    assert 'shared is in use by process ' in told[0]['locked']


def test_on_one_process():
    assert on_first_rank(lambda: 3) == 3
    with pytest.raises(UserError, match='no'):
        on_first_rank(_fail)


def _fail():
    raise UserError('no')


def test_versions_are_of_what_runs():
    found = versions()
    assert found['torch'] == torch.__version__ and len(found['code of simclr_mm']) == 8


def test_a_validation_has_the_statistics_that_are_saved(told):
    assert told[0]['statistics'] == told[1]['statistics']
