"""The files in ``google/`` were written by TensorFlow 2.21 (see make_fixtures.py)."""

import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from simclr_mm.checkpoints.foreign.google_layout import google_tensors
from simclr_mm.checkpoints.foreign.tensor_bundle import OBJECT_GRAPH, bundle_prefix, read_bundle
from simclr_mm.errors import CheckpointError

FIXTURES = Path(__file__).parent / 'google'
sys.path[:0] = [str(FIXTURES), str(FIXTURES.parents[1])]
from small_bundles import entry, field, record, table, varint  # noqa: E402
from variables import value  # noqa: E402


@pytest.fixture
def copied(tmp_path):
    for file in FIXTURES.glob('types.*'):
        shutil.copy(file, tmp_path)
    return tmp_path / 'types'


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


DATA = bytes(10**6)
RECORD = record(DATA)
HEADER = entry(0, b'', b'\x08\x01')  # one data file
BOMBS = {
    'long names in few bytes': table(
        HEADER
        + entry(0, b'n' * 40_000, b'')
        + b''.join(entry(40_000, b'%05d' % number, b'') for number in range(30_000))
    ),
    'one block often': table(HEADER + entry(0, b'n', bytes(200_000)), handles=10_000),
    'one value for many': table(
        HEADER + b''.join(entry(0, b'%06d' % number, RECORD) for number in range(2000))
    ),
    'a number without an end': table(HEADER + b'\xff' * 300_000),
    'another type': table(HEADER + entry(0, b'a', b'\x0a\x01\x01')),
    'a huge offset': table(HEADER + entry(0, b'a', b'\x08\x01\x20' + b'\xff' * 9 + b'\x01')),
}


@pytest.mark.parametrize('kind', BOMBS)
def test_an_index_takes_no_more_than_its_size(tmp_path, kind):
    (tmp_path / 'a.index').write_bytes(BOMBS[kind])
    (tmp_path / 'a.data-00000-of-00001').write_bytes(DATA)
    assert len(BOMBS[kind]) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match='no complete TensorFlow checkpoint') as error:
        read_bundle(str(tmp_path / 'a'))
    assert '\n' not in str(error.value) and len(str(error.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_an_object_graph_with_a_billion_ways_is_followed_once():
    """Ten objects in a row, each with 50 attributes that lead to the next one."""

    def node(names, child):
        links = (b'\x08' + varint(child) + field(2, name.encode()) for name in names)
        return field(1, b''.join(field(1, link) for link in links))

    numbers = [str(number) for number in range(50)]
    layers = [f'a{number}_layers' for number in range(50)]
    inner = [f'conv2d{number}' for number in range(50)]
    way = [['model'], ['resnet_model'], ['block_groups'], numbers, ['layers'], numbers, layers]
    way += [numbers, inner, inner, inner]
    graph = b''.join(node(names, place + 1) for place, names in enumerate(way)) + field(1, b'')
    with pytest.raises(CheckpointError, match='no SimCLR'):
        google_tensors({OBJECT_GRAPH: graph}, 'a')
