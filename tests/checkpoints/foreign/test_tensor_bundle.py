"""The files in ``google/`` were written by TensorFlow 2.21 (see make_fixtures.py)."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from simclr_mm.checkpoints.foreign.crc32c import crc32c
from simclr_mm.checkpoints.foreign.tensor_bundle import bundle_prefix, read_bundle
from simclr_mm.errors import CheckpointError

FIXTURES = Path(__file__).parent / 'google'
sys.path.insert(0, str(FIXTURES))
from variables import value  # noqa: E402


def slow_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.fixture
def copied(tmp_path):
    for file in FIXTURES.glob('types.*'):
        shutil.copy(file, tmp_path)
    return tmp_path / 'types'


@pytest.mark.parametrize('size', [0, 1, 511, 4096, 4097, 10000])
def test_crc32c_is_the_loop_over_bits(size):
    assert crc32c(b'123456789') == 0xE3069283, 'the value that RFC 3720 gives'
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == slow_crc32c(data)


def test_every_type_in_two_data_files():
    values = read_bundle(str(FIXTURES / 'types'))
    assert values.pop('text') == b'hello'
    expected = dict(
        scalar=np.array(3),
        floats=value('floats', (7, 191)),
        double=np.array([1.5, -2.5]),
        ints=np.array([[1], [-2]], np.int32),
        bools=np.array([True, False]),
        half=np.array([0.5, 3], np.float16),
        brain=np.array([1.5, -0.25, 3e38], np.float32),
        empty=np.zeros((0, 4), np.float32),
    )
    assert values.keys() == expected.keys()
    for key, array in expected.items():
        assert values[key].dtype == array.dtype and values[key].shape == array.shape
        np.testing.assert_allclose(values[key], array, rtol=2**-8 * (key == 'brain'))


def test_every_name_of_a_checkpoint(copied):
    for name in ('types', 'types.index', 'types.data-00000-of-00002', ''):
        assert bundle_prefix(copied.parent / name) == str(copied)
    assert bundle_prefix(copied.parent / 'other') == ''
    shutil.copy(f'{copied}.index', f'{copied}2.index')
    with pytest.raises(CheckpointError, match='holds 2 TensorFlow checkpoints'):
        bundle_prefix(copied.parent)


@pytest.mark.parametrize(
    'part, at, reason',
    [
        ('index', 30, 'is damaged'),
        ('index', -1, 'does not end as a table'),
        ('data-00000-of-00002', 100, 'its checksum differs'),
    ],
)
def test_one_wrong_byte(copied, part, at, reason):
    file = Path(f'{copied}.{part}')
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=reason):
        read_bundle(str(copied))


def test_missing_and_short_files(copied):
    data = Path(f'{copied}.data-00000-of-00002')
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match='is too short'):
        read_bundle(str(copied))
    data.unlink()
    with pytest.raises(CheckpointError, match='data-00000-of-00002'):
        read_bundle(str(copied))
    Path(f'{copied}.index').write_bytes(b'')
    with pytest.raises(CheckpointError, match='does not end as a table'):
        read_bundle(str(copied))
