"""What may be read is read; what could run code is refused before it runs."""
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from simclr_mm.checkpoints import CheckpointError, load_file

pytestmark = [
    pytest.mark.portable,
    pytest.mark.filterwarnings('ignore:TypedStorage'),
]
TRAINING_CHECKPOINTS = Path(__file__).with_name('training_checkpoints')


@pytest.mark.parametrize('name, version', [
    ('mmengine_numpy1.ckpt', '0.10.7'),
    ('mmengine_numpy2.ckpt', '0.10.7'),
    ('onedl-mmengine_numpy2.ckpt', '0.10.12'),
])
def test_training_checkpoints_of_every_distribution_load(name, version):
    checkpoint = load_file(TRAINING_CHECKPOINTS / name)
    assert checkpoint['meta']['mmengine_version'].startswith(version)
    assert checkpoint['meta']['epoch'] == 2 and checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['dataset_meta']['size'] == 8
    np.testing.assert_array_equal(checkpoint['meta']['dataset_meta']['mean'],
                                  [0.5, 1.5])
    lr = checkpoint['message_hub']['log_scalars']['train/lr']
    assert isinstance(lr, HistoryBuffer)
    assert lr.statistics('current') == lr.data[0][-1]
    assert lr.statistics('max') == lr.data[0].max()
    assert checkpoint['state_dict']['fc.weight'].shape == (1, 2)
    assert len(checkpoint['optimizer']['state']) == 2


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
    'zip':
    torch.save,
    'legacy':
    lambda content, path: torch.save(
        content, path, _use_new_zipfile_serialization=False),
    'pickle':
    lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    'tar':
    _tar,
}
DISGUISES = {
    'os.system':
    lambda marker: (Call(os.system, f'touch {marker}'), r'\w+\.system'),
    'eval':
    lambda marker: (Call(eval, f'open({str(marker)!r}, "w")'), 'eval'),
    'getattr to globals':
    lambda marker: (_through_globals(f'open({str(marker)!r}, "w")'),
                    r'getattr\(function, .__globals__'),
    'getattr to builtins':
    lambda marker: (_through_builtins(f'open({str(marker)!r}, "w")'),
                    r'getattr\(HistoryBuffer, .__init__'),
    'in a HistoryBuffer':
    lambda marker: (_in_a_history_buffer(f'open({str(marker)!r}, "w")'), 'eval'),
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
        error.match(f'is refused: it asks for {refused}')


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


def _huge_tensor(file: Path) -> None:
    storage = torch.zeros(1).untyped_storage()
    content = Call(
        torch._utils._rebuild_tensor_v2,
        torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32), 0,
        (2**60, ), (1, ), False, {})
    torch.save(content, file)


BROKEN = {
    'missing': (lambda file: None, 'does not exist'),
    'a directory': (lambda file: file.mkdir(), 'is a directory'),
    'empty': (lambda file: file.touch(), 'is empty'),
    'a web page': (lambda file: file.write_text('\n<!DOCTYPE html><p>404'), 'web page'),
    'text': (lambda file: file.write_text('weights'), 'no PyTorch checkpoint'),
    'truncated': (_truncated, 'truncated'),
    'truncated legacy': (_truncated_legacy, 'truncated'),
    'a tensor of 2^60 numbers': (_huge_tensor, 'cannot be read'),
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
    assert load_file(right)['a'].shape == (3, )
    wrong = right.rename(tmp_path / 'simclr_20220825-00000000.pth')
    with pytest.raises(
            CheckpointError, match=f'begins with {digest[:8]}.*says 00000000'):
        load_file(wrong)
    # MMEngine's published_keys put the hash of a pickle there, which no file has.
    assert load_file(wrong.rename(tmp_path /
                                  'epoch_1-00000000.pth'))['a'].shape == (3, )


def test_a_buffer_and_the_device(tmp_path):
    buffer = io.BytesIO()
    torch.save(dict(a=torch.ones(2)), buffer)
    buffer.seek(0)
    assert load_file(buffer, map_location='meta')['a'].is_meta
    with pytest.raises(CheckpointError, match='^s3://a cannot be read'):
        load_file(io.BytesIO(b'x'), name='s3://a')
