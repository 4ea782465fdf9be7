"""What may be read is read; what could run code is refused before it runs."""

import hashlib
import io
import os
import pickle
import runpy
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from simclr_mm.checkpoints import install_safe_loading, load_file, require_finite
from simclr_mm.errors import CheckpointError

pytestmark = [pytest.mark.portable, pytest.mark.filterwarnings('ignore:TypedStorage')]
TRAINING_CHECKPOINTS = Path(__file__).with_name('training_checkpoints')


@pytest.mark.parametrize(
    'name, version',
    [
        ('mmengine_numpy1.ckpt', '0.10.7'),
        ('mmengine_numpy2.ckpt', '0.10.7'),
        ('onedl-mmengine_numpy1.ckpt', '0.10.12'),
        ('onedl-mmengine_numpy2.ckpt', '0.10.12'),
    ],
)
def test_training_checkpoints_of_every_distribution_load(name, version):
    checkpoint = load_file(TRAINING_CHECKPOINTS / name)
    assert checkpoint['meta']['mmengine_version'].startswith(version)
    assert checkpoint['meta']['epoch'] == 2 and checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['dataset_meta']['size'] == 8
    np.testing.assert_array_equal(checkpoint['meta']['dataset_meta']['mean'], [0.5, 1.5])
    lr = checkpoint['message_hub']['log_scalars']['train/lr']
    assert isinstance(lr, HistoryBuffer)
    assert lr.statistics('current') == lr.data[0][-1]
    assert lr.statistics('max') == lr.data[0].max()
    assert checkpoint['state_dict']['fc.weight'].shape == (1, 2)
    assert len(checkpoint['optimizer']['state']) == 2


@pytest.mark.parametrize('file', TRAINING_CHECKPOINTS.glob('*.ckpt'), ids=lambda file: file.stem)
def test_training_checkpoints_of_every_distribution_resume(file, tmp_path):
    write = runpy.run_path(str(TRAINING_CHECKPOINTS / 'write.py'))
    install_safe_loading()
    runner = write['runner'](
        str(tmp_path),
        3,
        resume=True,
        load_from=str(file),
        experiment_name=file.stem,
        log_level='ERROR',
    )
    saved = load_file(file)
    runner.train()
    assert runner.iter == 6  # 4 of the file, 2 of the third epoch
    before, after = saved['message_hub']['log_scalars'], runner.message_hub.log_scalars
    losses = after['train/loss'].data[0]
    assert len(losses) == 6
    np.testing.assert_array_equal(losses[:4], before['train/loss'].data[0])
    steps = [int(s['step']) for s in runner.optim_wrapper.state_dict()['state'].values()]
    assert steps == [6, 6]
    again = load_file(tmp_path / 'epoch_3.pth')  # and what it saves can be read, too
    assert len(again['message_hub']['log_scalars']['train/loss'].data[0]) == 6


class Call:
    """Pickles as a call of any function; what unpickling returns is its result."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self):  # pickle accepts only what can be called as a function
        raise NotImplementedError


def _through_globals(code: str) -> Call:
    """Reach exec by attributes alone, from a function that any checkpoint names."""
    module = Call(getattr, HistoryBuffer.mean, '__globals__')
    builtins = Call(Call(getattr, module, 'get'), '__builtins__')
    return Call(Call(Call(getattr, builtins, 'get'), 'exec'), code)


def _through_builtins(code: str) -> Call:
    subclass = Call(getattr, HistoryBuffer, '__init__')
    builtins = Call(getattr, subclass, '__builtins__')
    return Call(Call(Call(getattr, builtins, 'get'), 'exec'), code)


def _in_a_history_buffer(code: str) -> HistoryBuffer:
    buffer = HistoryBuffer([1.0], [1])
    buffer.note = Call(eval, code)
    return buffer


def _tar(content, path: Path) -> None:
    """The format of PyTorch 0.1."""
    data = pickle.dumps(content, protocol=2)
    with tarfile.open(path, 'w') as tar:
        for name in ('storages', 'tensors', 'pickle'):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


SAVERS = {
    'zip': torch.save,
    'legacy': lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    'pickle': lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    'tar': _tar,
}
DISGUISES = {
    'os.system': lambda marker: (Call(os.system, f'touch {marker}'), r'\w+\.system'),
    'eval': lambda marker: (Call(eval, f'open({str(marker)!r}, "w")'), 'eval'),
    'getattr to globals': lambda marker: (
        _through_globals(f'open({str(marker)!r}, "w")'),
        r'builtins.getattr\(..., .__globals__',
    ),
    'getattr to builtins': lambda marker: (
        _through_builtins(f'open({str(marker)!r}, "w")'),
        r'builtins.getattr\(..., .__init__',
    ),
    'in a HistoryBuffer': lambda marker: (
        _in_a_history_buffer(f'open({str(marker)!r}, "w")'),
        'eval',
    ),
}


@pytest.mark.parametrize('saver', SAVERS)
@pytest.mark.parametrize('disguise', DISGUISES)
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, saver, disguise):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    file, marker = tmp_path / 'evil.pth', tmp_path / 'it_ran'
    content, refused = DISGUISES[disguise](marker)
    SAVERS[saver](dict(state_dict=content), file)
    try:  # the trap itself works
        torch.load(file, weights_only=False)
    except Exception:  # pickle and tar end in an error, after running the code
        pass
    assert marker.exists()
    marker.unlink()
    with pytest.raises(CheckpointError) as error:
        load_file(file)
    assert not marker.exists()
    message = str(error.value)
    assert str(file) in message and '\n' not in message
    if saver != 'tar':
        error.match(rf'is refused: it asks for (builtins\.)?{refused}')


def test_a_getattr_that_another_library_allowed_stays_out(tmp_path):
    marker = tmp_path / 'it_ran'
    file = tmp_path / 'evil.pth'
    torch.save(Call(getattr, HistoryBuffer.mean, '__globals__'), file)
    foreign = [getattr, (getattr, 'builtins.getattr'), Path]
    with torch.serialization.safe_globals(foreign):
        for _ in range(10):  # PyTorch keeps them in a set: any order
            with pytest.raises(CheckpointError, match='__globals__'):
                load_file(file)
        assert set(foreign) <= set(torch.serialization.get_safe_globals())
    assert not marker.exists()


def test_loading_leaves_the_process_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    buffer._statistics_methods = dict(mean=HistoryBuffer.min)  # a statistic that lies
    torch.save(buffer, tmp_path / 'poisoned.pth')
    loaded = load_file(tmp_path / 'poisoned.pth')
    assert set(torch.serialization.get_safe_globals()) == before
    assert HistoryBuffer([1.0, 3.0], [1, 1]).statistics('mean') == 2.0
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean
    np.testing.assert_array_equal(loaded.data[0], [1.0, 3.0])


ARRAYS = [
    np.arange(6, dtype='>i2').reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(['cat', 'a']),
    np.array([b'cat', b'']),
    np.array([True, False]),
    np.array([1 + 2j], dtype='complex64'),
    np.zeros((0, 3), dtype='float16'),
    np.array(7),
]
NUMBERS = [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_('cat'), np.str_('')]


def test_numpy_is_read_as_it_was(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 3])
    content = dict(arrays=ARRAYS, numbers=NUMBERS, pair=(ARRAYS[0], (ARRAYS[1],)))
    content.update(again=ARRAYS[0], buffers=OrderedDict(a=buffer, b=[buffer]))
    torch.save(content, tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')
    for wanted, found in zip(ARRAYS + NUMBERS, loaded['arrays'] + loaded['numbers']):
        assert type(found) is type(wanted) and found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    assert loaded['arrays'][1].flags.f_contiguous
    loaded['again'][0, 0] = 9  # one array under several names, and writable
    assert loaded['arrays'][0][0, 0] == loaded['pair'][0][0, 0] == 9
    np.testing.assert_array_equal(loaded['pair'][1][0], ARRAYS[1])
    assert loaded['buffers']['a'] is loaded['buffers']['b'][0]
    assert loaded['buffers']['a'].mean() == buffer.mean() == 0.75
    assert loaded['buffers']['a'].max_length == buffer.max_length


@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64', 'complex64'])
def test_weights_that_are_not_finite_are_named(value, dtype):
    good = torch.ones(2, dtype=getattr(torch, dtype))
    bad = torch.tensor([1, value]).to(good.dtype)
    state = {'a': good, 'b.c': bad, 'd': torch.ones(2, dtype=torch.long), 'e': bad}
    with pytest.raises(CheckpointError, match='x.pth .* in 2 of 4 keys: b.c, e;'):
        require_finite(state, 'x.pth')
    require_finite(dict(a=good, steps=3), 'x.pth')


def test_what_the_user_allowed_passes(tmp_path):
    torch.save(dict(path=Call(Path, 'a')), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='pathlib'):
        load_file(tmp_path / 'a.pth')
    with torch.serialization.safe_globals([Path]):
        assert load_file(tmp_path / 'a.pth') == dict(path=Path('a'))


def _truncated(file: Path) -> None:
    torch.save(dict(a=torch.zeros(1000)), file)
    file.write_bytes(file.read_bytes()[:2000])


def _truncated_legacy(file: Path) -> None:
    torch.save(dict(a=torch.zeros(1000)), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:2000])


BROKEN = {
    'missing': (lambda file: None, 'does not exist'),
    'a directory': (lambda file: file.mkdir(), 'is a folder'),
    'empty': (lambda file: file.touch(), 'is empty'),
    'a web page': (lambda file: file.write_text('\n<!DOCTYPE html><p>404'), 'web page'),
    'text': (lambda file: file.write_text('weights'), 'no PyTorch checkpoint'),
    'truncated': (_truncated, 'truncated'),
    'truncated legacy': (_truncated_legacy, 'truncated'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_files_end_in_one_line(tmp_path, kind):
    make, message = BROKEN[kind]
    file = tmp_path / 'x.pth'
    make(file)
    with pytest.raises(CheckpointError, match=message) as error:
        load_file(file)
    assert str(file) in str(error.value) and '\n' not in str(error.value)


def test_the_hash_in_a_name_is_verified(tmp_path):
    torch.save(dict(a=torch.zeros(3)), tmp_path / 'x.pth')
    digest = hashlib.sha256((tmp_path / 'x.pth').read_bytes()).hexdigest()
    right = tmp_path / f'simclr_20220825-{digest[:8]}.pth'
    (tmp_path / 'x.pth').rename(right)
    assert load_file(right)['a'].shape == (3,)
    wrong = right.rename(tmp_path / 'simclr_20220825-00000000.pth')
    with pytest.raises(CheckpointError, match=f'begins with {digest[:8]}.*says 00000000'):
        load_file(wrong)
    # MMEngine's published_keys put the hash of a pickle there, which no file has.
    assert load_file(wrong.rename(tmp_path / 'epoch_1-00000000.pth'))['a'].shape == (3,)


def test_the_device(tmp_path):
    torch.save(dict(a=torch.ones(2)), tmp_path / 'a.pth')
    assert load_file(tmp_path / 'a.pth', map_location='meta')['a'].is_meta
