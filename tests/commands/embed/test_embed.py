"""A folder becomes a file, row by row, however often it is interrupted."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from simclr_mm.apis import get_model
from simclr_mm.apis.inference import FeatureInferencer, inference_model
from simclr_mm.commands.embed import embed_folder as embed
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.embed.embedding_record import new_record

NAME = 'simclr_r18-w16_1xb256-coslr-10e_cifar10'
NAMES = [f'{"ab"[k // 5]}/{k}.png' for k in range(10)]
BROKEN = (3, 7)  # rows


@pytest.fixture(scope='module')
def inferencer():
    torch.manual_seed(0)
    return FeatureInferencer(get_model(NAME))


@pytest.fixture
def folder(tmp_path):
    """Ten images in two folders, two of them unreadable, and a text."""
    rng = np.random.default_rng(0)
    for row, name in enumerate(NAMES):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if row in BROKEN:
            path.write_bytes(b'no image')
        else:
            pixels = rng.integers(0, 256, (20 + row, 24, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    (tmp_path / 'images' / 'readme.txt').write_text('text')
    return tmp_path / 'images'


def stop_after(inferencer, batches, monkeypatch):
    """Let the encoder die after some batches, the first of which tells the width."""
    forward, calls = inferencer.forward, []

    def dying(batch):
        if len(calls) == batches + 1:
            raise KeyboardInterrupt
        calls.append(len(batch['inputs']))
        return forward(batch)

    monkeypatch.setattr(inferencer, 'forward', dying)
    return calls


@pytest.mark.parametrize('workers', [0, 1])
def test_each_row_is_its_image(inferencer, folder, tmp_path, workers):
    record = embed_folder(inferencer, folder, tmp_path / 'out', 4, workers)
    features = np.load(tmp_path / 'out' / 'features.npy')
    paths = json.loads((tmp_path / 'out' / 'paths.json').read_text())
    assert features.dtype == np.float32 and paths == NAMES
    for row, name in enumerate(NAMES):
        if row in BROKEN:
            assert np.isnan(features[row]).all()
        else:
            expected = inference_model(inferencer.model, folder / name)['feature']
            np.testing.assert_allclose(features[row], expected, atol=1e-5)
    lines = (tmp_path / 'out' / 'errors.jsonl').read_text().splitlines()
    errors = [json.loads(line) for line in lines]
    assert [(e['row'], e['path']) for e in errors] == [(r, NAMES[r]) for r in BROKEN]
    assert all('not an image' in error['reason'] for error in errors)
    counts = dict(images=10, rows_done=10, unreadable=2, width=128)
    assert counts.items() <= record.items()
    assert record == json.loads((tmp_path / 'out' / 'embedding.json').read_text())
    transform = record['transform']
    assert transform['pipeline'][0] == dict(type='Resize', scale=32)
    assert transform['data_preprocessor']['std'] == [255.0] * 3


def test_the_documented_lines(inferencer, folder, tmp_path):
    embed_folder(inferencer, folder, tmp_path / 'out')
    features = np.load(tmp_path / 'out' / 'features.npy')
    rows = np.flatnonzero(np.isfinite(features[:, 0]))
    neighbours = NearestNeighbors(metric='cosine').fit(features[rows])
    found = neighbours.kneighbors(features[rows[:2]], 1, return_distance=False)
    assert rows[found[:, 0]].tolist() == [0, 1]


def test_stopped_and_resumed_equals_unbroken(inferencer, folder, tmp_path, monkeypatch):
    embed_folder(inferencer, folder, tmp_path / 'whole', 2)
    monkeypatch.setattr(embed, '_SAVE_EVERY', -1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(inferencer, 2, patch)
        embed_folder(inferencer, folder, tmp_path / 'out', 2)
    out = tmp_path / 'out'
    assert not (out / 'features.npy').exists()
    # What a kill between two saves leaves: a note of a row that is done again.
    with open(out / 'errors.jsonl', 'a') as errors:
        errors.write('{"row": 7, "path": "b/7.png", "reason": "twice"}\n{"row": 8, "pa')
    with monkeypatch.context() as patch:
        calls = stop_after(inferencer, 99, patch)
        embed_folder(inferencer, folder, out, 2)
    assert calls[1:] == [2, 1, 2]  # rows 4 and 5, 6 (7 is broken), 8 and 9
    for name in ('features.npy', 'paths.json', 'errors.jsonl', 'embedding.json'):
        assert (out / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert not (out / 'features.partial.npy').exists()


def test_done_is_done(inferencer, folder, tmp_path, monkeypatch):
    embed_folder(inferencer, folder, tmp_path / 'out')
    calls = stop_after(inferencer, 99, monkeypatch)
    record = embed_folder(inferencer, folder, tmp_path / 'out')
    assert record['rows_done'] == 10 and calls == [1]  # the one that tells the width


def test_rows_of_something_else_are_refused(inferencer, folder, tmp_path):
    out = tmp_path / 'out'
    embed_folder(inferencer, folder, out)
    before = (out / 'features.npy').read_bytes()
    model = get_model(NAME)  # other random weights
    with pytest.raises(ValueError, match='10 of 10 rows.*else: the weights changed'):
        embed_folder(FeatureInferencer(model), folder, out)
    half = FeatureInferencer(inferencer.model, precision='bf16')
    with pytest.raises(ValueError, match='the precision changed'):
        embed_folder(half, folder, out)
    os.utime(folder / NAMES[0], (0, 0))
    with pytest.raises(ValueError, match='the images in the folder changed.*--restart'):
        embed_folder(inferencer, folder, out)
    assert (out / 'features.npy').read_bytes() == before
    (folder / NAMES[9]).unlink()
    assert embed_folder(inferencer, folder, out, restart=True)['images'] == 9
    assert np.load(out / 'features.npy').shape == (9, 128)


def test_another_transform_is_refused(folder, tmp_path):
    inferencer = FeatureInferencer(get_model(NAME))
    embed_folder(inferencer, folder, tmp_path / 'out')
    inferencer.model.data_preprocessor.mean += 0.5  # [0, 255]
    with pytest.raises(ValueError, match='else: the transform changed'):
        embed_folder(inferencer, folder, tmp_path / 'out')


def test_a_features_file_of_unknown_origin(inferencer, folder, tmp_path):
    (tmp_path / 'features.npy').write_bytes(b'precious')
    with pytest.raises(ValueError, match='features.npy exists without embedding.json'):
        embed_folder(inferencer, folder, tmp_path)
    assert (tmp_path / 'features.npy').read_bytes() == b'precious'


def test_two_at_a_time(inferencer, folder, tmp_path):
    with FileLock(tmp_path / '.lock'), pytest.raises(ValueError, match='another proc'):
        embed_folder(inferencer, folder, tmp_path)


def test_no_folder_and_no_image(inferencer, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder .*/absent'):
        embed_folder(inferencer, tmp_path / 'absent', tmp_path / 'out')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty holds no image'):
        embed_folder(inferencer, tmp_path / 'empty', tmp_path / 'out')


def test_a_pack_by_url_is_known_by_its_version(inferencer):
    """Its names are the same in another pack, and there are no files to look at."""

    def files(version):
        dataset = SimpleNamespace(storage=lambda: [version])
        images = SimpleNamespace(location='memory://bucket', is_pack=True, images=dataset)
        return new_record(inferencer, images, ['shard-0/0.png'], None)['fingerprint']['files']

    assert files('1') == files('1') != files('2')
