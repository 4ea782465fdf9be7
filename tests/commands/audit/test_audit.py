"""tools/audit.py: planted copies, leaks, useless images, the subset, and exit codes."""

import csv
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.tools import tool

import simclr_mm
from simclr_mm.commands.audit import findings
from simclr_mm.commands.audit.duplicates import Pair, candidates, same_pictures
from simclr_mm.commands.audit.findings import Audit, diverse, groups
from simclr_mm.errors import UserError


def scene(seed, height=60, width=80):
    """A picture with a few large shapes and many small ones, RGB."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.integers(256, size=(n, n, 3)).astype(np.uint8), (width, height))
        for n in (3, 9, 20)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def saved(path, image, quality=95):
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == '.jpg' else []
    cv2.imwrite(str(path), image[..., ::-1], ending)


COPIES = {
    'resized': lambda image: cv2.resize(image, (40, 30), interpolation=cv2.INTER_AREA),
    'squeezed': lambda image: cv2.resize(image, (60, 60), interpolation=cv2.INTER_AREA),
    'mirrored': lambda image: image[:, ::-1],
    'cropped': lambda image: image[6:54, 8:72],
    'cropped_tall': lambda image: image[2:58, 30:66],
    'cropped_mirrored': lambda image: image[8:60, 8:70][:, ::-1],
}


def thumbnails(images):
    return np.stack([cv2.resize(each, (48, 48), interpolation=cv2.INTER_AREA) for each in images])


@pytest.mark.parametrize('kind', COPIES)
@pytest.mark.parametrize('turned', [False, True])
def test_a_copy_is_the_same_picture_and_another_scene_is_not(kind, turned):
    images = [scene(0), COPIES[kind](scene(0)), scene(1)]
    if turned:
        images[:2] = images[1::-1]
    aspects = np.array([each.shape[1] / each.shape[0] for each in images])
    found, *others = same_pictures([(0, 1), (0, 2), (1, 2)], thumbnails(images), aspects)
    assert others == [None, None]
    assert (found.first, found.second) == (0, 1) and found.likeness > 0.95
    for word in ('cropped', 'mirrored'):
        assert (word in found.kind) == (word in kind)


def test_one_light_with_other_details_is_not_the_same_picture():
    light = np.linspace(0, 180, 80)[None, :, None] * np.linspace(0.3, 1, 60)[:, None, None]
    images = [
        (
            light
            + cv2.resize(np.random.default_rng(seed).normal(0, 25, (30, 40)), (80, 60))[..., None]
        )
        .clip(0, 255)
        .repeat(3, axis=2)
        .astype(np.uint8)
        for seed in (0, 1)
    ]
    small = thumbnails(images)
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.9
    assert list(same_pictures([(0, 1)], small, np.ones(2))) == [None]


def test_candidates_are_the_nearest_of_naive_loops_and_mirrored_copies():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(7, 5)).astype(np.float32)
    images = [scene(seed) for seed in range(6)]
    found = {
        tuple(pair) for pair in candidates(features, thumbnails([*images, images[2][:, ::-1]]), 2)
    }
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = {(2, 6)}
    for row in range(7):
        others = sorted((-float(unit[row] @ unit[i]), i) for i in range(7) if i != row)
        expected |= {(min(row, i), max(row, i)) for _, i in others[:2]}
    assert found == expected


def test_groups_join_chains():
    pairs = [Pair(a, b, 1.0, '') for a, b in ((4, 5), (0, 2), (2, 5))]
    assert groups(6, pairs) == [0, 1, 0, 3, 0, 0]


def test_a_copy_of_use_stands_for_a_tiny_first_one():
    pairs = [Pair(a, b, 1.0, 'duplicates') for a, b in ((0, 2), (2, 4))]
    found = SimpleNamespace(paths=list('abcde'), constant=[], tiny=[0], pairs=pairs)
    found.pictures = SimpleNamespace(unreadable=[3])
    assert Audit.sound(found).tolist() == [1, 2]


def test_diverse_rows_are_the_farthest_of_a_naive_loop():
    features = np.random.default_rng(0).normal(size=(40, 3)) + 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    chosen, distances = diverse(features, 6)
    assert chosen[0] == (unit @ unit.mean(axis=0)).argmax()
    for place in range(1, 6):
        to_chosen = [min(np.linalg.norm(x - unit[i]) for i in chosen[:place]) for x in unit]
        assert chosen[place] == np.argmax(to_chosen)
        assert distances[place] == pytest.approx(max(to_chosen))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = simclr_mm.get_model(str(DIGITS))
    path = tmp_path_factory.mktemp('weights') / 'digits.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=model._config.pretty_text)), path)
    return path


def exit_code(*args):
    try:
        tool('audit.py', *args)
    except SystemExit as end:
        return end.code
    return 0


def test_tool_finds_everything_that_was_planted(weights, tmp_path, capsys):
    train, test, out = (tmp_path / name for name in ('train', 'test', 'out'))
    for seed in range(30):
        saved(train / f'{seed:02d}.png', scene(seed))
    hostile = '<img src=x onerror=alert(1)>.jpg'
    saved(train / 'z' / hostile, scene(3), quality=40)
    for row, (name, copy) in enumerate(COPIES.items()):
        saved(train / f'z_{name}.jpg', copy(scene(4 + row)))
    for seed in range(30, 40):
        saved(test / f'{seed}.png', scene(seed))
    saved(test / 'leak.jpg', cv2.resize(scene(20), (100, 75)))
    (train / 'cut.jpg').write_bytes((train / 'z' / hostile).read_bytes()[:-300])
    saved(train / 'grey.png', np.full((60, 80, 3), 90, np.uint8))
    saved(test / 'tiny.png', scene(50, 12, 90))
    flags = ('--checkpoint', weights, '--workers', 0, '--out', out, '--subset', 12)
    flags += ('--neighbours', 99)  # every pair, because the weights are random
    assert exit_code(train, '--test', test, *flags) == 1
    assert '1 leaks, 7 duplicates, 1 broken, 1 constant, 1 tiny' in capsys.readouterr().out

    lines = list(csv.DictReader(open(out / 'findings.csv')))
    found = {
        (line['finding'], *(os.path.basename(line[key]) for key in ('image', 'other')))
        for line in lines
    }
    expected = {
        ('duplicates', f'{4 + row:02d}.png', f'z_{name}.jpg') for row, name in enumerate(COPIES)
    }
    assert found == expected | {
        ('duplicates', '03.png', hostile),
        ('leaks', '20.png', 'leak.jpg'),
        ('broken', 'cut.jpg', ''),
        ('constant', 'grey.png', ''),
        ('tiny', 'tiny.png', ''),
    }
    page = (out / 'audit.html').read_text()
    assert '<img src=x' not in page and '&lt;img src=x onerror=alert(1)&gt;.jpg' in page
    assert page.count('src="data:image/jpeg;base64,/9j/') == 2 * 8 + 2 + 12
    subset = [os.path.basename(line['image']) for line in csv.DictReader(open(out / 'subset.csv'))]
    assert len(set(subset)) == 12 and not {'grey.png', 'cut.jpg', hostile} & set(subset)

    (train / 'z' / hostile).unlink()  # one of the copies is gone, and the rest is looked at anew
    capsys.readouterr()
    allowed = ('--allow', 'leaks=1', 'duplicates=6', 'broken=1', 'constant=1', 'tiny=1')
    assert exit_code(train, '--test', test, *flags, *allowed) == 0
    said = capsys.readouterr().out
    assert f'{out / "features"} is embedded anew: the images in the folder changed since.' in said
    assert f'{out / "features_test"} is embedded' not in said
    (out / 'features' / 'embedding.json').write_text('{')
    (out / 'features_test' / 'embedding.json').unlink()
    assert exit_code(train, '--test', test, *flags, *allowed) == 0
    assert f'{out / "features"} is embedded anew: ' in capsys.readouterr().out


def test_features_that_overflow_are_no_findings(tmp_path, monkeypatch):
    for i in range(3):
        saved(tmp_path / 'images' / f'{i}.png', scene(i))

    def overflow(inferencer, folder, out, **kwargs):
        out.mkdir(parents=True)
        rows = np.full((3, 4), np.inf, np.float32)
        index = SimpleNamespace(names=[f'{i}.png' for i in range(3)], features=rows)
        monkeypatch.setattr(findings, 'FeatureIndex', lambda place: index)

    monkeypatch.setattr(findings, 'embed_folder', overflow)
    with pytest.raises(UserError, match='features of 3 readable images, such as 0.png.*fp32'):
        findings.audit(None, [tmp_path / 'images'], tmp_path / 'out', 5, 16)


def test_mistakes_end_with_2(weights, tmp_path, capsys):
    saved(tmp_path / 'images' / 'a.png', scene(0))
    saved(tmp_path / 'images' / 'b.png', scene(1))
    flags = ('--checkpoint', weights, '--workers', 0, '--out', tmp_path / 'out')
    for args, part in (
        ((tmp_path / 'none', *flags), 'no folder'),
        ((tmp_path / 'images', *flags, '--test', tmp_path / 'images'), 'is the folder itself'),
        ((tmp_path / 'images', *flags, '--test', tmp_path / 'none'), 'no folder'),
        ((tmp_path / 'images', *flags, '--allow', 'leeks=1'), 'the kinds are leaks'),
        ((tmp_path / 'images', *flags, '--allow', 'leaks=many'), 'a whole number'),
        ((tmp_path / 'images', '--checkpoint', tmp_path / 'no.pth'), 'no.pth'),
        ((tmp_path / 'images', *flags, '--subset', 3), 'there are 2 different images'),
    ):
        assert exit_code(*args) == 2
        assert part in capsys.readouterr().err
        assert not (tmp_path / 'out').exists() or '--subset' in args
    assert exit_code(tmp_path / 'images', *flags) == 0


def test_a_pack_is_refused(tmp_path, capsys):
    for name in ('a', 'b'):
        (tmp_path / 'pack').mkdir(exist_ok=True)
        (tmp_path / 'pack' / f'{name}.tar').touch()
    with pytest.raises(SystemExit):
        tool('audit.py', tmp_path / 'pack')
    assert 'is a pack: audit the folder that it was packed from' in capsys.readouterr().err
