"""The nearest images are those that a naive search finds."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from simclr_mm.apis import get_model
from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.commands.embed import retrieval
from simclr_mm.commands.embed.command import write_parquet
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.embed.retrieval import FeatureIndex, retrieve
from simclr_mm.errors import UserError

NAME = 'simclr_r18-w16_1xb256-coslr-10e_cifar10'


@pytest.fixture(scope='module')
def inferencer():
    torch.manual_seed(0)
    return FeatureInferencer(get_model(NAME))


@pytest.fixture(scope='module')
def index(inferencer, tmp_path_factory):
    """Twelve images of one colour each in two folders, the fifth unreadable."""
    root = tmp_path_factory.mktemp('retrieval')
    for k in range(12):
        path = root / 'images' / 'ab'[k // 6] / f'{k:02}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (32, 32), (20 * k, 90, 240 - 20 * k)).save(path)
        if k == 4:
            path.write_bytes(b'no image')
    embed_folder(inferencer, root / 'images', root / 'index')
    return FeatureIndex(root / 'index')


def naive(features, query, k):
    """Cosines one by one, equal ones in the order of their rows."""
    cosines = []
    for row, feature in enumerate(features):
        norm = np.sqrt((feature**2).sum() * (query**2).sum())
        cosine = 0.0 if norm == 0 else float((feature * query).sum() / norm)
        if not np.isnan(cosine):
            cosines.append((-cosine, row))
    return [(row, -value) for value, row in sorted(cosines)[:k]]


@pytest.mark.parametrize('block', [1, 3, 7, 1000])
def test_search_against_the_naive_loop(index, monkeypatch, block):
    monkeypatch.setattr(retrieval, '_ROWS', block)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 8)).round(1)
    features[7] = 0
    features[9] = np.nan
    features[31] = 2 * features[30]  # a tie
    monkeypatch.setattr(index, 'features', features.astype(np.float32))
    monkeypatch.setitem(index.record, 'images', 50)
    queries = features[[30, 1, 2]] * [[1.0], [3.0], [-1.0]]
    for k in (1, 5, 49):
        similarities, rows = index.search(queries, k)
        assert similarities.shape == rows.shape == (3, k)
        for query, values, places in zip(queries, similarities, rows):
            expected = naive(features, query, k)
            assert places.tolist() == [row for row, _ in expected]
            np.testing.assert_allclose(values, [v for _, v in expected], atol=1e-6)


def test_what_cannot_be_searched(index):
    for k in (0, 12):
        with pytest.raises(ValueError, match='holds 11 readable ones'):
            index.search(np.zeros((1, 128)), k)
    with pytest.raises(ValueError, match=r'\(q, 128\) features.*got \(1, 7\)'):
        index.search(np.zeros((1, 7)), 1)


def test_the_query_itself_is_left_out(inferencer, index, tmp_path):
    path = index.folder / 'a' / '02.png'
    (hits,) = retrieve(inferencer, index, [str(path)], 10)
    assert [hit.name for hit in hits].count('a/02.png') == 0 and len(hits) == 10
    assert {hits[0].name, hits[1].name} == {'a/01.png', 'a/03.png'}
    assert hits[0].path == str(index.folder / hits[0].name)
    copy = tmp_path / 'copy.png'
    copy.write_bytes(path.read_bytes())
    (hits,) = retrieve(inferencer, index, [str(copy)], 11)
    assert hits[0].name == 'a/02.png' and hits[0].similarity == pytest.approx(1)
    with pytest.raises(ValueError, match='holds 10 others'):
        retrieve(inferencer, index, [str(path)], 11)


def test_links_to_the_query_take_no_places(inferencer, index, tmp_path):
    shutil.copytree(index.folder, tmp_path / 'images')
    path = tmp_path / 'images' / 'a' / '02.png'
    for name in 'xyz':
        (tmp_path / 'images' / f'{name}.png').symlink_to(path)
    embed_folder(inferencer, tmp_path / 'images', tmp_path / 'index')
    linked = FeatureIndex(tmp_path / 'index')
    for k in (1, 3, 10):
        (expected,) = retrieve(inferencer, index, [str(index.folder / 'a' / '02.png')], k)
        (hits,) = retrieve(inferencer, linked, [str(path)], k)
        assert [hit.name for hit in hits] == [hit.name for hit in expected]
    with pytest.raises(ValueError, match='holds 10 others'):
        retrieve(inferencer, linked, [str(path)], 11)


def test_another_encoder_is_refused(index):
    other = FeatureInferencer(get_model(NAME))
    with pytest.raises(ValueError, match='embedded with other weights, so'):
        retrieve(other, index, [], 1)


def test_what_is_no_index(index, tmp_path):
    with pytest.raises(ValueError, match='holds no embedding.json: make the index with'):
        FeatureIndex(tmp_path)
    record = {**index.record, 'rows_done': 3}
    (tmp_path / 'embedding.json').write_text(json.dumps(record))
    with pytest.raises(ValueError, match='not complete, 3 of 12 images'):
        FeatureIndex(tmp_path)


def test_parquet_holds_the_same(index, monkeypatch):
    parquet = pytest.importorskip('pyarrow.parquet', reason='pyarrow is not installed')
    monkeypatch.setattr('simclr_mm.commands.embed.command._ROWS', 5)
    table = parquet.read_table(write_parquet(index.directory))
    assert table['path'].to_pylist() == index.names
    features, errors = table['feature'].to_pylist(), table['error'].to_pylist()
    for row, feature in enumerate(features):
        if row == 4:
            assert feature is None and 'not an image' in errors[row]
        else:
            assert feature == index.features[row].tolist() and errors[row] is None
    assert json.loads(table.schema.metadata[b'simclr_mm']) == index.record


def test_a_query_that_is_not_there(index, inferencer):
    with pytest.raises(FileNotFoundError, match='nowhere.png: there is no such file'):
        retrieve(inferencer, index, ['nowhere.png'], k=1)


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('embedding.json', b'{"folder"', 'embedding.json is damaged'),
        ('embedding.json', b'[]', 'embedding.json is not what'),
        ('embedding.json', b'{"images": "x"}', 'embedding.json is not .* without images'),
        ('paths.json', b'{}', 'paths.json is no list of names'),
        ('paths.json', b'[1]', 'paths.json is no list of names'),
        ('paths.json', b'["a"', 'paths.json is damaged'),
        ('paths.json', b'["a"]', '12 rows and 1 names of 12 images'),
        ('features.npy', b'x', 'features.npy is damaged'),
        ('features.npy', b'', 'features.npy is damaged'),
    ],
)
def test_a_damaged_index(index, tmp_path, name, content, message):
    folder = shutil.copytree(index.directory, tmp_path / 'index')
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{message}.*embed again'):
        FeatureIndex(folder)


def test_a_record_without_a_part_of_its_fingerprint(index, tmp_path):
    folder = shutil.copytree(index.directory, tmp_path / 'index')
    record = json.loads((folder / 'embedding.json').read_text())
    del record['fingerprint']['weights']
    (folder / 'embedding.json').write_text(json.dumps(record))
    with pytest.raises(UserError, match='without fingerprint.weights'):
        FeatureIndex(folder)


def test_features_of_another_form(index, tmp_path):
    folder = shutil.copytree(index.directory, tmp_path / 'index')
    np.save(folder / 'features.npy', np.zeros(12, np.float32))
    with pytest.raises(UserError, match='features.npy is not what'):
        FeatureIndex(folder)
