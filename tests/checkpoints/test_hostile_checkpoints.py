"""Broken and malicious checkpoints end a tool in one line, and nothing in them runs."""

import codecs
import contextlib
import functools
import io
import os
import pickle
import re
import resource
import struct
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CONFIGS, DIGITS
from helpers.hostile import Call
from helpers.tools import refusal
from mmengine.logging import HistoryBuffer

from simclr_mm import get_model
from simclr_mm.checkpoints import load_file, trusting
from simclr_mm.errors import CheckpointError

pytestmark = [pytest.mark.portable, pytest.mark.filterwarnings('ignore:TypedStorage')]
LINEAR = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-linear-adam-100e_digits.py'
MARKER = 'it_ran'  # a file that code inside a checkpoint would make


@functools.cache
def weights() -> OrderedDict:
    """What fits the digits config."""
    return get_model(str(DIGITS)).state_dict()


def saved(content, **kwargs) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **kwargs)
    return buffer.getvalue()


def entries(file: bytes) -> dict:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict, compression=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def in_training_checkpoint(evil) -> bytes:
    return saved(dict(meta=dict(epoch=1, hook=evil), state_dict=weights()))


# --- Code in disguise -----------------------------------------------------------------

SHELL = f'touch {MARKER}'
PYTHON = f'open({MARKER!r}, "w")'


def through_globals():
    """Reach exec by attributes alone, from a function that any checkpoint names."""
    module = Call(getattr, HistoryBuffer.mean, '__globals__')
    builtins = Call(Call(getattr, module, 'get'), '__builtins__')
    return Call(Call(Call(getattr, builtins, 'get'), 'exec'), PYTHON)


def through_builtins():
    builtins = Call(getattr, Call(getattr, HistoryBuffer, '__init__'), '__builtins__')
    return Call(Call(Call(getattr, builtins, 'get'), 'exec'), PYTHON)


def in_a_history_buffer():
    buffer = HistoryBuffer([1.0], [1])
    buffer.note = Call(eval, PYTHON)
    return buffer


def in_tar() -> bytes:
    """The format of PyTorch 0.1."""
    buffer = io.BytesIO()
    data = pickle.dumps(Call(os.system, SHELL), protocol=2)
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        for name in ('storages', 'tensors', 'pickle'):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def by_rebuilding():
    return Call(torch._tensor._rebuild_from_type_v2, os.system, int, (SHELL,), {})


CODE = {
    'os.system': lambda: saved(Call(os.system, SHELL)),
    'os.system beside weights': lambda: in_training_checkpoint(Call(os.system, SHELL)),
    'os.system before PyTorch 1.6': lambda: saved(
        Call(os.system, SHELL), _use_new_zipfile_serialization=False
    ),
    'os.system in a plain pickle': lambda: pickle.dumps(Call(os.system, SHELL), protocol=2),
    'os.system through a rebuilt tensor': lambda: saved(by_rebuilding()),
    'subprocess': lambda: saved(Call(subprocess.check_call, SHELL.split())),
    'eval': lambda: in_training_checkpoint(Call(eval, PYTHON)),
    'eval as a key': lambda: saved({Call(eval, PYTHON): 1}),
    'eval in a HistoryBuffer': lambda: in_training_checkpoint(in_a_history_buffer()),
    'eval in an array': lambda: saved(np.array([Call(eval, PYTHON)], dtype=object)),
    'eval in a partial': lambda: saved(functools.partial(Call(eval, PYTHON))),
    'getattr to globals': lambda: saved(through_globals()),
    'getattr to builtins': lambda: saved(through_builtins()),
    'a pickle in a pickle': lambda: saved(Call(pickle.loads, pickle.dumps(Call(os.system, SHELL)))),
    'a pickle in a storage': lambda: saved(
        Call(torch.storage._load_from_bytes, saved(Call(os.system, SHELL)))
    ),
}
IN_TAR = {'os.system in a tar': (in_tar, 'cannot be read')}

# --- Files that claim more than they hold ---------------------------------------------


def tensor_of(elements: int, stride: int):
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.zeros(1).untyped_storage(), dtype=torch.float32
    )
    return Call(torch._utils._rebuild_tensor_v2, storage, 0, (elements,), (stride,), False, {})


def short_storage() -> bytes:
    parts = entries(saved(dict(a=torch.ones(1000))))
    return zipped(
        {name: data[:40] if name.endswith('data/0') else data for name, data in parts.items()}
    )


def in_capitals() -> bytes:
    """PyTorch finds entries in any case."""
    parts = entries(short_storage())
    return zipped({name.replace('data', 'DATA'): data for name, data in parts.items()})


def in_many_spellings() -> bytes:
    """PyTorch would read one entry again for each spelling of its name."""
    parts = entries(saved(dict(a=torch.zeros(0))))  # of which the pickle claims no bytes
    parts = {name.replace('data/0', 'data/a'): data for name, data in parts.items()}
    name = next(name for name in parts if name.endswith('data.pkl'))
    key = b'X\x01\0\0\0'
    assert parts[name].count(key + b'0') == 1
    parts[name] = parts[name].replace(key + b'0', key + b'A')
    return zipped(parts)


def compressed() -> bytes:
    parts = entries(saved(dict(a=torch.zeros(1))))
    parts = {
        name: bytes(10**7) if name.endswith('data/0') else data for name, data in parts.items()
    }
    return zipped(parts, zipfile.ZIP_DEFLATED)


def overlapping() -> bytes:
    """Two entries of the directory refer to the same bytes of the file."""
    file = bytearray(saved(dict(a=torch.zeros(1000), b=torch.zeros(1000))))
    first = file.index(b'PK\1\2')
    for name in (b'data/1', b'data/0'):  # both begin where data/0 begins
        at = file.index(name, first) - len('archive/') - 46
        place = file[at + 42 : at + 46]
        if name == b'data/1':
            target = at
    file[target + 42 : target + 46] = place
    for at in range(len(file) - 4):  # and both claim the whole file
        if file[at : at + 4] == b'PK\1\2' and b'data/' in file[at + 46 : at + 66]:
            file[at + 20 : at + 28] = struct.pack('<II', len(file), len(file))
    return bytes(file)


def nested(opcode: bytes, times: int) -> bytes:
    """A dict whose key is a tuple in a tuple and so on, which dicts have to hash."""
    key = b')' + opcode * times
    parts = entries(saved({}))
    name = next(name for name in parts if name.endswith('data.pkl'))
    parts[name] = b'\x80\2}' + key + b'Ns.'
    return zipped(parts)


def lists(times: int) -> list:
    """A list that holds the same list ten times, and so on: 10^times numbers."""
    content = [0.0]
    for _ in range(times):
        content = [content] * 10
    return content


def pickled(opcodes: bytes) -> bytes:
    """A checkpoint whose pickle is given."""
    parts = entries(saved({}))
    name = next(name for name in parts if name.endswith('data.pkl'))
    return zipped({**parts, name: b'\x80\2' + opcodes + b'.'})


def two_directories() -> bytes:
    """Python reads the last directory of a zip, PyTorch the one that the locator names."""
    file = saved(dict(a=torch.ones(1000)))
    end64, locator, end = file[-98:-42], file[-42:-22], file[-22:]
    length, offset = struct.unpack('<40xQQ', end64)
    entries_, right = file[:offset], file[offset : offset + length]
    wrong = bytearray(right)
    at = right.index(b'data/0') - len('archive/') - 46
    wrong[at + 20 : at + 28] = struct.pack('<II', 40, 40)
    first = end64[:48] + struct.pack('<Q', offset)
    last = end64[:48] + struct.pack('<Q', offset + length + 56)
    locator = locator[:8] + struct.pack('<Q', offset + length) + locator[16:]
    return b''.join((entries_, wrong, first, right, last, locator, end))


def encoded(times: int):
    """Bytes that double with every call."""
    content = Call(codecs.encode, 'a' * 64, 'latin1')
    for _ in range(times):
        content = Call(codecs.encode, content, 'hex')
    return content


def copied() -> bytes:
    """A thousand sets of one list of 100,000 numbers."""
    numbers = list(range(100_000))
    return saved([Call(set, numbers) for _ in range(1000)])


def deep_keys() -> bytes:
    """One tuple of 2^18 parts, in 100 bytes, is a dict's key 100,000 times."""
    return pickled(b'})' + b'q\0h\0\x86' * 18 + b'q\0Ns' + b'h\0Ns' * 100_000)


def colliding_keys() -> bytes:
    """Multiples of 2^61 - 1 have one hash: a dict compares each with all before it."""
    keys = (number * (2**61 - 1) for number in range(1, 50_000))
    return pickled(
        b'}' + b''.join(b'\x8a\x0a' + key.to_bytes(10, 'little') + b'Ns' for key in keys)
    )


def dicts_in_dicts() -> dict:
    """2^60 ways lead to one tensor."""
    content = dict(a=torch.zeros(1))
    for _ in range(60):
        content = dict(x=content, y=content)
    return content


RECONSTRUCT = np.zeros(0).__reduce__()[0]
SCALAR = np.float64(0).__reduce__()[0]
BROKEN_DTYPE = (3, '|', (np.dtype('i4'), (2**30, 2)), None, None, 4, 1, 63)
BOMBS = {
    'a tensor of 2^60 numbers': (lambda: saved(tensor_of(2**60, 1)), 'cannot be read'),
    'a tensor of 2^40 numbers in one': (lambda: saved(tensor_of(2**40, 0)), 'its tensors claim'),
    'a tensor of 2^40 numbers before PyTorch 1.6': (
        lambda: saved(tensor_of(2**40, 1), _use_new_zipfile_serialization=False),
        'cannot be read',
    ),
    'a storage shorter than its tensor': (short_storage, 'storage 0 claims 4000 bytes and has 40'),
    'the same in capitals': (in_capitals, 'storage 0 claims 4000 bytes and has 40'),
    'a storage spelt otherwise': (in_many_spellings, 'has no storage A'),
    'a compressed entry': (compressed, 'are compressed or overlap'),
    'overlapping entries': (overlapping, 'are compressed or overlap'),
    'tuples in tuples': (lambda: nested(b'\x85', 2**20), 'is nested'),
    'every tuple twice': (lambda: nested(b'q\0h\0\x86', 60), 'would make more'),
    'a bytearray of 2^36': (
        lambda: saved(Call(bytearray, 2**36)),
        'asks for __builtin__.bytearray',
    ),
    'an array of 2^32 objects': (
        lambda: saved(Call(np.ndarray, (2**32,), 'O')),
        'asks for numpy.ndarray',
    ),
    'an array made of 2^32 objects': (
        lambda: saved(Call(RECONSTRUCT, np.ndarray, (2**32,), 'O')),
        'asks for numpy.core.multiarray._reconstruct',
    ),
    'a number of 2^30 bytes': (
        lambda: saved(Call(SCALAR, np.dtype('S1073741824'))),
        'asks for numpy.dtype',
    ),
    'a dtype that damages memory': (
        lambda: saved(Call(np.dtype, 'i4', False, True, state=BROKEN_DTYPE)),
        'asks for a numpy.dtype of records',
    ),
    'two directories': (two_directories, 'does not end as PyTorch ends one'),
    'bytes encoded again and again': (lambda: saved(encoded(30)), 'asks for _codecs.encode'),
    'one list copied a thousand times': (copied, 'would make more'),
    'one long key': (deep_keys, 'would make more'),
    'keys of one hash': (colliding_keys, 'would make more'),
    'a million empty lists': (lambda: pickled(b'](' + b']' * 1_100_000 + b'e'), 'opcodes'),
    'a call of nested lists, which PyTorch prints': (
        lambda: pickled(pickle.dumps(lists(12), 2)[2:-1] + b')R'),
        'calls something that is no function',
    ),
    'a storage of 2^36': (
        lambda: saved(Call(torch.UntypedStorage, 2**36)),
        'asks for torch.storage.UntypedStorage',
    ),
    'a bytearray through a rebuilt tensor': (
        lambda: saved(Call(torch._tensor._rebuild_from_type_v2, bytearray, int, (2**36,), {})),
        'bytearray, which could take any size',
    ),
    'a long list under a stand-in': (
        lambda: saved(Call(getattr, HistoryBuffer, lists(12))),
        'would make more',
    ),
    'dicts in dicts': (lambda: saved(dict(state_dict=dicts_in_dicts())), 'holds no weights'),
    'a HistoryBuffer of 10^12 numbers': (
        lambda: saved(Call(HistoryBuffer, lists(11), [])),
        'would make more',
    ),
}

# --- Broken files ---------------------------------------------------------------------


def with_value(value: float) -> bytes:
    state = dict(weights())
    state['backbone.conv1.weight'] = state['backbone.conv1.weight'].clone()
    state['backbone.conv1.weight'][0, 0, 0, 0] = value
    return saved(dict(state_dict=state))


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), buffer)
    return buffer.getvalue()


BROKEN = {
    'a truncated zip': (lambda: saved(weights())[:5000], 'is truncated'),
    'a zip without its last byte': (lambda: saved(weights())[:-1], 'is truncated'),
    'a truncated old file': (
        lambda: saved(weights(), _use_new_zipfile_serialization=False)[:5000],
        'cannot be read',
    ),
    'NaN weights': (
        lambda: with_value(float('nan')),
        'NaN or infinite weights in 1 of .*: backbone.conv1.weight;',
    ),
    'infinite weights': (lambda: with_value(float('inf')), 'backbone.conv1.weight;'),
    'another architecture': (
        lambda: saved({**weights(), 'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}),
        r'1 of another shape: backbone.conv1.weight \(64, 3, 7, 7\) for',
    ),
    'a web page': (lambda: b'\n<!DOCTYPE html><html>404', 'is a web page'),
    'an empty file': (lambda: b'', 'is empty'),
    'text': (lambda: b'weights', 'no PyTorch checkpoint'),
    'a TorchScript': (script, 'cannot be read'),
    'no weights': (lambda: saved(dict(epoch=1)), 'epoch|weights'),
}
HOSTILE = {
    **{kind: (make, 'is refused: it asks for') for kind, make in CODE.items()},
    'getattr to globals': (CODE['getattr to globals'], r'builtins.getattr\(..., .__globals__'),
    'getattr to builtins': (CODE['getattr to builtins'], r'builtins.getattr\(..., .__init__'),
    **IN_TAR,
    **BOMBS,
    **BROKEN,
}

# --- The tests ------------------------------------------------------------------------


@pytest.fixture
def little_memory():
    """A bomb ends in a MemoryError of this process, not in the machine's memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * resource.getpagesize() + 2 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_file_ends_in_one_line(kind, tmp_path, monkeypatch, little_memory):
    monkeypatch.chdir(tmp_path)
    make, message = HOSTILE[kind]
    file = tmp_path / 'x.pth'
    file.write_bytes(make())
    if kind in (*CODE, *IN_TAR):
        with contextlib.suppress(Exception):  # some end in an error after running the code
            torch.load(file, weights_only=False)
        Path(MARKER).unlink()  # the trap itself works
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refusal('evaluate_features.py', DIGITS, file)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak  # kB
    assert grown < 200_000
    assert said.startswith('evaluate_features.py: error: ')
    assert str(file) in said and '\n' not in said and len(said) < 1500
    assert re.search(message, said), said
    assert not (tmp_path / MARKER).exists()


def test_paths_that_hold_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a_folder').mkdir()
    (tmp_path / 'x_20240101-00000000.pth').write_bytes(saved(weights()))
    for name, message in (
        ('nowhere.pth', 'does not exist'),
        ('a_folder', 'is a folder'),
        ('x_20240101-00000000.pth', 'its name says 00000000'),
        ('http://127.0.0.1:9/x.pth', 'cannot download .* refused'),
    ):
        said = refusal('evaluate_features.py', DIGITS, name)
        assert re.search(message, said) and name in said and '\n' not in said, said


@pytest.mark.parametrize(
    'tool, config, flags',
    [
        ('test.py', DIGITS, '{}'),
        ('train.py', DIGITS, '--resume {}'),
        ('train.py', DIGITS, '--cfg-options load_from={}'),
        ('train.py', LINEAR, '--pretrained {}'),
    ],
)
def test_every_tool_reads_in_the_same_way(tool, config, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, message in (
        ('NaN weights', 'backbone.conv1.weight; its training'),
        ('another architecture', r'conv1.weight.*64, 3, 7, 7'),
    ):
        (tmp_path / 'x.pth').write_bytes(BROKEN[kind][0]())
        said = refusal(tool, config, *flags.format('x.pth').split())
        assert re.search(message, said) and 'x.pth' in said and '\n' not in said, said


def test_code_in_what_a_run_resumes_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x.pth').write_bytes(CODE['os.system beside weights']())
    said = refusal('train.py', DIGITS, '--resume', 'x.pth')
    assert said.startswith('train.py: error: x.pth is refused: it asks for')
    assert not (tmp_path / MARKER).exists()


# --- Trust ----------------------------------------------------------------------------


def test_trust_is_for_one_run_of_a_tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x.pth').write_bytes(saved(dict(hook=Call(os.system, SHELL), state_dict={})))
    for flag, message in (
        ([], 'refused'),
        (['--trust-checkpoint'], 'holds no weights'),
        ([], 'refused'),
    ):
        said = refusal('evaluate_features.py', DIGITS, 'x.pth', *flag)
        assert message in said, said
        assert (tmp_path / MARKER).exists() == bool(flag)
        (tmp_path / MARKER).unlink(missing_ok=True)


def test_trust_is_for_one_call_of_the_api(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'x.pth'
    file.write_bytes(in_training_checkpoint(Call(os.system, SHELL)))
    for _ in range(2):
        with pytest.raises(CheckpointError, match='trust_checkpoint=True'):
            get_model(str(DIGITS), pretrained=file)
        with pytest.raises(CheckpointError, match='refused'):
            load_file(file)
        assert not (tmp_path / MARKER).exists()
        get_model(str(DIGITS), pretrained=file, trust_checkpoint=True)
        with trusting():
            load_file(file)
        (tmp_path / MARKER).unlink()


def test_trust_does_not_reach_other_threads(tmp_path):
    file = tmp_path / 'x.pth'
    file.write_bytes(saved(Call(os.system, 'true')))
    with trusting(), ThreadPoolExecutor(1) as pool:
        load_file(file)
        with pytest.raises(CheckpointError, match='refused'):
            pool.submit(load_file, file).result()
    with trusting(), trusting(False):  # what the tool's user allowed stays allowed
        load_file(file)
