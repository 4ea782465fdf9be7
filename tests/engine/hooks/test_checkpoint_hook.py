"""Whenever a run is killed, a complete checkpoint is there and is named."""

import builtins
import errno
import itertools
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import fsspec
import mmengine.hooks
import pytest
import torch
from helpers import processes
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from simclr_mm.checkpoints import install_safe_loading, load_file
from simclr_mm.engine.hooks import checkpoint_storage
from simclr_mm.engine.hooks.checkpoint_hook import CheckpointHook
from simclr_mm.engine.hooks.checkpoint_storage import AtomicLocalBackend
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.storage import StorageError

pytestmark = pytest.mark.portable
_RUNS = itertools.count()  # MMEngine keeps one message hub for each name


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 1)

    def forward(self, *points, mode: str):
        y = self.fc(torch.stack(points))
        return dict(loss=y.pow(2).mean()) if mode == 'loss' else [y]


class Points(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int):
        return torch.tensor([index, 1.0])


class Rising(BaseMetric):
    """Better with every evaluation, so that each makes the best checkpoint anew."""

    value = 0

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        Rising.value += 1
        return dict(accuracy=Rising.value, accuracy_top5=Rising.value)


def _runner(work_dir, hook, epochs: int = 3, **kwargs) -> Runner:
    Rising.value = 0
    loader = dict(dataset=Points(), batch_size=1, sampler=dict(type='DefaultSampler'))
    return Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        val_evaluator=Evaluator(Rising()),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=hook),
        log_level='ERROR',
        experiment_name=f'checkpoint_hook_{next(_RUNS)}',
        **kwargs,
    )


def _names(folder) -> list:
    return sorted(path.name for path in Path(folder).iterdir() if path.is_file())


def test_what_is_kept(tmp_path):
    _runner(
        tmp_path,
        CheckpointHook(interval=1, max_keep_ckpts=2, save_best=['accuracy', 'accuracy_top5']),
    ).train()
    best = ['best_accuracy_epoch_3.pth', 'best_accuracy_top5_epoch_3.pth']
    log = next(name for name in _names(tmp_path) if name.endswith('.py'))
    expected = [log, *best, 'epoch_2.pth', 'epoch_3.pth', 'last_checkpoint']
    assert _names(tmp_path) == sorted(expected)
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')
    info = load_file(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info']
    assert info['keep_ckpt_ids'] == [2, 3]
    assert info['best_ckpt_accuracy'] == str(tmp_path / best[0])


@pytest.mark.parametrize('scores, best', [((0.2, 0.9, 0.3), 2), ((0.2, 0.1, 0.9), 3)])
def test_a_worse_epoch_keeps_the_best(tmp_path, monkeypatch, scores, best):
    scores = iter(scores)
    monkeypatch.setattr(Rising, 'compute_metrics', lambda *_: dict(accuracy=next(scores)))
    _runner(tmp_path, CheckpointHook(interval=1, save_best='auto')).train()
    names = [name for name in _names(tmp_path) if 'best' in name]
    assert names == [f'best_accuracy_epoch_{best}.pth']


def test_a_best_that_no_validation_gives_is_named(tmp_path):
    hook = CheckpointHook(interval=1, save_best='top9', rule='greater')
    with pytest.raises(UserError, match='save_best=top9: the validation gives accuracy, accura'):
        _runner(tmp_path, hook, epochs=1).train()


@pytest.mark.parametrize('rule', [None, 'more'])
def test_a_best_of_unknown_direction_asks_for_the_rule(rule):
    with pytest.raises(UserError, match=r"default_hooks\.checkpoint\.rule='greater' or 'less'"):
        CheckpointHook(interval=1, save_best='label_free/alignment', rule=rule)


def test_a_resumed_run_goes_on_removing(tmp_path):
    hook = dict(interval=1, max_keep_ckpts=1, save_best='accuracy')
    _runner(tmp_path, CheckpointHook(**hook), epochs=2).train()
    install_safe_loading()
    runner = _runner(tmp_path, CheckpointHook(**hook), resume=True)
    Rising.value = 2
    runner.train()
    assert [n for n in _names(tmp_path) if n.endswith('.pth')] == [
        'best_accuracy_epoch_3.pth',
        'epoch_3.pth',
    ]


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    work_dir, out_dir = tmp_path / 'run', tmp_path / 'out'
    for folder in (work_dir, out_dir / 'run'):
        folder.mkdir(parents=True)
        (folder / '.epoch_1.pth.partial').write_bytes(b'half')
        os.utime(folder / '.epoch_1.pth.partial', (0, 0))  # killed long ago
    _runner(work_dir, CheckpointHook(interval=1, out_dir=str(out_dir))).train()
    assert not list(tmp_path.rglob('*.partial'))
    assert (out_dir / 'run' / 'epoch_3.pth').is_file()
    assert (work_dir / 'last_checkpoint').read_text() == str(out_dir / 'run' / 'epoch_3.pth')


def test_a_backend_of_the_user_stays(tmp_path):
    hook = CheckpointHook(interval=1, backend_args=dict(backend='local'))
    _runner(tmp_path, hook).train()
    assert hook.backend_args == dict(backend='local')


@pytest.mark.parametrize('number, attempts', [(errno.ENOSPC, 4), (errno.EROFS, 1)])
def test_a_full_disk_is_tried_again_and_a_read_only_one_is_not(
    tmp_path, monkeypatch, number, attempts
):
    waited, failing = [], [True]

    @contextmanager
    def full(path):
        if failing[0]:
            raise OSError(number, os.strerror(number))
        with atomic_file(path) as file:
            yield file

    monkeypatch.setattr(checkpoint_storage, 'atomic_file', full)
    monkeypatch.setattr(checkpoint_storage.time, 'sleep', waited.append)
    file = tmp_path / 'epoch_1.pth'
    file.write_bytes(b'before')
    with pytest.raises(OSError, match=os.strerror(number)):
        AtomicLocalBackend().put(b'after', file)
    assert file.read_bytes() == b'before' and len(waited) == attempts - 1
    monkeypatch.setattr(
        checkpoint_storage.time, 'sleep', lambda wait: failing.clear() or failing.append(False)
    )
    if number == errno.ENOSPC:  # space is made while it waits
        AtomicLocalBackend().put(b'after', file)
        assert file.read_bytes() == b'after'


def _stored(folder) -> list:
    return sorted(Path(path).name for path in fsspec.filesystem('memory').ls(folder, detail=False))


def test_checkpoints_on_a_storage(tmp_path):
    hook = CheckpointHook(
        interval=1, max_keep_ckpts=1, save_best='accuracy', out_dir='memory://kept/'
    )
    _runner(tmp_path / 'run', hook).train()
    names = ['best_accuracy_epoch_3.pth', 'epoch_3.pth', 'last_checkpoint']
    assert _stored('/kept/run') == names
    newest = b'memory://kept/run/epoch_3.pth'
    assert fsspec.filesystem('memory').cat('/kept/run/last_checkpoint') == newest
    assert not list((tmp_path / 'run').glob('*.pth'))
    assert (tmp_path / 'run' / 'last_checkpoint').read_bytes() == newest


def test_a_file_url_is_a_folder(tmp_path):
    hook = CheckpointHook(interval=1, out_dir=f'file://{tmp_path}/a%20b')
    _runner(tmp_path / 'run', hook, epochs=1).train()
    path = tmp_path / 'a b' / 'run' / 'epoch_1.pth'
    assert path.is_file() and (tmp_path / 'run' / 'last_checkpoint').read_text() == str(path)


@pytest.mark.parametrize('error, attempts', [(ConnectionError, 4), (PermissionError, 1)])
def test_an_upload_that_fails(tmp_path, monkeypatch, error, attempts):
    """The second epoch cannot be written. The first one stays, and the run can go on."""
    memory, waited, tried = type(fsspec.filesystem('memory')), [], []
    pipe_file = memory.pipe_file

    def fail(self, path, value, **kwargs):
        if path.endswith('epoch_2.pth') and len(tried) < 4:
            tried.append(path)
            raise error('no answer')
        return pipe_file(self, path, value, **kwargs)

    monkeypatch.setattr(memory, 'pipe_file', fail)
    monkeypatch.setattr(checkpoint_storage.time, 'sleep', waited.append)
    folder = f'memory://{tmp_path.name}'
    hook = CheckpointHook(interval=1, max_keep_ckpts=1, out_dir=folder)
    with pytest.raises(StorageError, match='epoch_2.pth cannot be written .*: no answer'):
        _runner(tmp_path / 'run', hook).train()
    assert len(tried) == attempts and waited == [1, 5, 15][: attempts - 1]
    assert _stored(f'/{tmp_path.name}/run') == ['epoch_1.pth', 'last_checkpoint']
    tried[3:] = []  # one failure more
    install_safe_loading()
    run = _runner(tmp_path / 'run', CheckpointHook(interval=1, out_dir=folder), resume=True)
    if error is ConnectionError:
        run.train()
        assert waited == [1, 5, 15, 1]
        assert 'epoch_3.pth' in _stored(f'/{tmp_path.name}/run')


def test_a_storage_without_rights_ends_the_run_at_its_start(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError('Access Denied')

    monkeypatch.setattr(type(fsspec.filesystem('memory')), 'pipe_file', refuse)
    hook = CheckpointHook(interval=1, out_dir='memory://forbidden')
    run = _runner(tmp_path / 'run', hook)
    with pytest.raises(StorageError, match='forbidden/run/.write_test cannot be written .Permi'):
        run.train()
    assert run.iter == 0


class KilledFile:
    """Writes half of what it is given, then ends the process, if it is time to."""

    def __init__(self, file, tick) -> None:
        self.file, self.tick = file, tick

    def write(self, data) -> int:
        if self.tick():
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(data)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


def _train_until(runner: Runner, steps: int) -> None:
    """Kill this process at its ``steps``-th change of a checkpoint file."""
    torch.set_num_threads(1)  # OpenMP does not outlive a fork
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return count == steps

    def watched(path) -> bool:
        return str(path).endswith(('.pth', '.partial', 'last_checkpoint'))

    def audit(event: str, args: tuple) -> None:
        if event in ('os.rename', 'os.remove') and watched(args[0]) and tick():
            os.kill(os.getpid(), signal.SIGKILL)

    plain_open = builtins.open

    def open_(path, mode='r', *args, **kwargs):
        file = plain_open(path, mode, *args, **kwargs)
        return KilledFile(file, tick) if 'w' in mode and watched(path) else file

    builtins.open = open_
    sys.addaudithook(audit)
    runner.train()


def killed_at_every_step(work_dir, hook_type) -> int:
    """Train in a child that is killed one step later each time; return the steps.

    Children are forked from a process of its own, because PyTorch refuses to train in
    the child of one that has used all of autograd.
    """
    with ProcessPoolExecutor(1, processes.CONTEXT) as pool:
        return pool.submit(_killed_at_every_step, work_dir, hook_type).result()


def _killed_at_every_step(work_dir, hook_type) -> int:
    hook = hook_type(interval=1, max_keep_ckpts=1, save_best='accuracy')
    runner = _runner(work_dir, hook, epochs=2)
    for steps in range(1, 100):
        for path in work_dir.iterdir():
            if path.name.endswith(('.pth', '.partial', 'last_checkpoint')):
                path.unlink()
        process = multiprocessing.get_context('fork').Process(
            target=_train_until, args=(runner, steps)
        )
        process.start()
        process.join(60)
        names = _names(work_dir)
        for name in names:
            if name.endswith('.pth'):
                load_file(work_dir / name)
        if (work_dir / 'last_checkpoint').exists():
            last = (work_dir / 'last_checkpoint').read_text()
            assert load_file(last)['meta']['epoch'] >= 1
        if 'epoch_2.pth' in names:  # the first epoch made a best one
            assert any(name.startswith('best') for name in names), names
        if process.exitcode == 0:
            return steps
        assert process.exitcode == -signal.SIGKILL
    raise AssertionError('the run never ends')


def test_a_kill_at_any_instant_leaves_a_checkpoint(tmp_path):
    # Two epochs: the checkpoint, the best one and the checkpoint again, each written
    # and renamed; last_checkpoint twice as well; one or two files removed.
    assert killed_at_every_step(tmp_path, CheckpointHook) > 2 * 10


def test_mmengines_hook_does_lose_checkpoints(tmp_path):
    with pytest.raises((CheckpointError, AssertionError)):
        killed_at_every_step(tmp_path, mmengine.hooks.CheckpointHook)
