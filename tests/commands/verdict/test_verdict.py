"""tools/verdict.py: planted encoders, the sentence, the page and mistakes."""

import json
import tarfile

import numpy as np
import pytest
import torch
from helpers import DIGITS, ROOT
from helpers.tools import refusal, tool
from PIL import Image
from torchvision.models import resnet18

import simclr_mm
from simclr_mm import get_model
from simclr_mm.commands.verdict.curves import all_hits, draws_of
from simclr_mm.commands.verdict.judgement import answer, compare, sentence
from simclr_mm.evaluation import read_run


def planted(seed, mine, theirs, test_images, margin=2.0):
    """The comparison of features whose classes lie ``mine`` and ``theirs`` apart.

    Both share a part of their noise, as two encoders of the same images do.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 8))

    def draw(n):
        labels, shared = np.arange(n) % 4, rng.normal(size=(n, 8))
        noise = [0.6 * shared + 0.8 * rng.normal(size=(n, 8)) for _ in range(2)]
        return labels, [
            (apart * centres[labels] + each).astype(np.float32)
            for apart, each in zip((mine, theirs), noise)
        ]

    (labels, train), (wanted, test) = draw(400), draw(test_images)
    features = {name: ((train[i], labels), (test[i], wanted)) for i, name in enumerate(('a', 'b'))}
    hits = all_hits(features, draws_of(labels, (0.05, 0.2, 1.0), 4, seed), k=20)
    return compare(hits, len(labels), margin)


@pytest.mark.slow
@pytest.mark.parametrize(
    'expected, mine, theirs, test_images, margin',
    [
        ('better', 1.0, 0.7, 400, 2),
        ('worse', 0.7, 1.0, 400, 2),
        ('equal', 1.0, 1.0, 4000, 8),
        ('too few labels to tell', 1.0, 1.0, 60, 2),
    ],
)
def test_planted_encoders_get_the_right_verdict_in_19_of_20_seeds(
    expected, mine, theirs, test_images, margin
):
    found = [planted(seed, mine, theirs, test_images, margin)[0].status for seed in range(20)]
    assert found.count(expected) >= 19, found


def test_planted_encoder_is_better():
    (found,) = planted(0, 1.5, 0.7, 200)
    assert found.status == 'better' and 10 < found.mean.low < found.mean.value < found.mean.high
    low, high = found.cells['kNN', 400].low, found.cells['linear', 20].high
    assert low < found.cells['kNN', 400].value and found.cells['linear', 20].value < high


def table(mean, images, draws=1):
    """Hits of the first images, as many as the mean says."""
    return np.repeat([np.arange(images) < mean * images], draws, 0).astype(float)


def judged(mine, *others, images=1000):
    """Comparisons and sentence where kNN with 10 and with 100 labels has these accuracies."""
    names = ('ours', 'untrained encoder', '<b>.pth')
    hits = {
        name: {('kNN', 10): table(few, images, 3), ('kNN', 100): table(every, images)}
        for name, (few, every) in zip(names, (mine, *others))
    }
    found = compare(hits, 100, 2.0)
    text = sentence(found, 'the encoder', {10: '10 %', 100: '100 %'}, images, 2.0)
    return answer(found), [each.status for each in found], text


def test_sentence_says_which_is_better():
    verdict, statuses, text = judged((0.5, 0.5), (0.3, 0.3), (0.2, 0.2))
    assert (verdict, statuses) == ('yes', ['better', 'better'])
    # 200 of 1000 images differ: 2.5022 sqrt(0.2 0.8 / 999 + 1e-6), t at 1.25 % of both sides.
    assert text == (
        'Yes: averaged over 10 % and 100 % of the labels, kNN, the encoder is better than the '
        'untrained encoder by 20.0 points (16.8 to 23.2) and better than <b>.pth by 30.0 points '
        '(26.4 to 33.6).'
    )


def test_single_numbers_have_wider_intervals_that_hold_together():
    hits = {
        name: {('kNN', 10): table(mean, 1000, 3), ('kNN', 100): table(mean, 1000)}
        for name, mean in (('ours', 0.5), ('theirs', 0.3))
    }
    (found,) = compare(hits, 100, 2.0)
    error = 100 * np.sqrt(0.16 / 999 + 1e-6)  # t at 1.25 and at 0.625 % of both sides
    assert found.mean.high == pytest.approx(20 + 2.2448 * error, abs=1e-3)
    assert found.cells['kNN', 10].high == pytest.approx(20 + 2.5022 * error, abs=1e-3)


@pytest.mark.parametrize(
    'mine, others, images, verdict, statuses, part',
    [
        ((0.3, 0.3), [(0.5, 0.5)], 1000, 'no', ['worse'], 'is worse than the untrained encoder by'),
        ((0.3, 0.3), [(0.3, 0.3)], 1000, 'no', ['equal'], 'as good as the untrained encoder'),
        (
            *((0.35, 0.3), [(0.3, 0.3)], 20, 'too few labels to tell', ['too few labels to tell']),
            'mostly for the 20 test images, too few',
        ),
        (
            *((0.5, 0.5), [(0.3, 0.3), (0.6, 0.6)], 1000, 'no', ['better', 'worse']),
            'the encoder is worse than <b>.pth by 10.0 points (7.6 to 12.4) and better than',
        ),
        (
            *((0.9, 0.5), [(0.5, 0.6)], 1000, 'it depends', ['it depends']),
            'better with 10 % by kNN and worse with 100 % by kNN',
        ),
    ],
)
def test_sentence_says_no_and_too_few(mine, others, images, verdict, statuses, part):
    found = judged(mine, *others, images=images)
    assert found[:2] == (verdict, statuses) and part in found[2]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = simclr_mm.get_model(str(DIGITS))
    path = tmp_path_factory.mktemp('weights') / 'digits.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=model._config.pretty_text)), path)
    return path


def pictures(folder, names, count=12):
    rng = np.random.default_rng(0)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(100, size=(8, 8, 3)) + 150 * level
            Image.fromarray(noise.astype(np.uint8)).save(folder / name / f'{i}.png')


def test_tool_divides_a_folder_and_compares_a_foreign_file(weights, tmp_path, capfd):
    pictures(tmp_path / 'data', ['dark', 'bright'])
    other = tmp_path / '<img src=x onerror=alert(1)>.pth'
    torch.save(resnet18().state_dict(), other)
    tool(
        *('verdict.py', weights, '--data', tmp_path / 'data', '--out', tmp_path / 'out'),
        *('--shares', 20, 100, '--draws', 2, '--k', 5, '--workers', 0, '--against', other),
    )
    printed = capfd.readouterr().out
    split = '12 of its 24 images, 50 % of each class by seed 0, are test images'
    page = (tmp_path / 'out/verdict.html').read_text()
    assert '<img src=x' not in page and '&lt;img src=x onerror=alert(1)&gt;.pth' in page
    verdict = json.loads((tmp_path / 'out/verdict.json').read_text())
    assert verdict['sentence'] in printed and split in printed and split in page
    assert (verdict['labels'], verdict['test_images'], verdict['classes']) == ([2, 12], 12, 2)
    assert [each['opponent'] for each in verdict['comparisons']][:2] == [
        *('untrained encoder', 'raw pixels')
    ]
    run = read_run(tmp_path / 'out/evaluation.json')
    of_pixels = [each for each in run.results if each.features == 'raw pixels']
    assert [each.protocol for each in of_pixels] == [
        *('knn-16.7%', 'linear-16.7%', 'knn-100%', 'linear-100%')
    ]
    assert of_pixels[3].value == 100  # dark and bright
    assert [each.settings['k'] for each in of_pixels[::2]] == [2, 5]


def test_the_same_encoder_as_opponent_has_the_same_hits(weights, tmp_path):
    pictures(tmp_path / 'data' / 'train', ['a', 'b'])
    pictures(tmp_path / 'data' / 'test', ['a', 'b'])
    tool(
        *('verdict.py', weights, '--data', tmp_path / 'data', '--out', tmp_path, '--shares', 20),
        *('--draws', 2, '--workers', 0, '--against', f'{DIGITS}={weights}'),
    )
    last = json.loads((tmp_path / 'verdict.json').read_text())['comparisons'][-1]
    assert last['opponent'].endswith(weights.name)
    assert last['mean']['value'] == 0 and all(cell['value'] == 0 for cell in last['cells'])


def test_a_checkpoint_of_tensorflow_as_opponent(weights, tmp_path):
    pictures(tmp_path / 'data', ['dark', 'bright'])
    with tarfile.open(ROOT / 'tests/checkpoints/foreign/google/tensorflow2.tar.xz') as archive:
        archive.extractall(tmp_path, filter='data')
    tool(
        *('verdict.py', weights, '--data', tmp_path / 'data', '--out', tmp_path, '--shares', 20),
        *('--draws', 2, '--workers', 0, '--against', tmp_path / 'variables'),
    )
    last = json.loads((tmp_path / 'verdict.json').read_text())['comparisons'][-1]
    assert last['opponent'].endswith('/variables')


def test_mistakes(weights, tmp_path):
    def refused(*args):
        return refusal('verdict.py', weights, '--workers', 0, '--data', *args)

    pictures(tmp_path / 'one', ['a'])
    assert 'have one class' in refused(tmp_path / 'one')
    pictures(tmp_path / 'single', ['a', 'b'])
    pictures(tmp_path / 'single', ['c'], count=1)
    assert 'class c has one image' in refused(tmp_path / 'single')
    pictures(tmp_path / 'half' / 'train', ['a', 'b'])
    assert 'there is neither' in refused(tmp_path / 'half')
    pictures(tmp_path / 'half' / 'test', ['a', 'b'])
    assert '--test-share divides' in refused(tmp_path / 'half', '--test-share', 20)
    assert 'no folder' in refused(tmp_path / 'absent')
    (tmp_path / 'text.pth').write_text('text')
    pictures(tmp_path / 'two', ['a', 'b'])
    torch.save(get_model('resnet18_8xb16_cifar10').state_dict(), tmp_path / 'rgb.pth')
    against = f'resnet18_8xb16_cifar10={tmp_path / "rgb.pth"}'
    said = refused(tmp_path / 'two', '--against', against)
    assert 'write data_preprocessor.to_rgb=True into a copy' in said
    assert 'text.pth' in refused(tmp_path / 'two', '--against', tmp_path / 'text.pth')
