"""Statistics of bands against NumPy's in float64 over all pixels at once."""

import numpy as np
import pytest
from helpers import CONFIGS
from helpers.tools import refusal, tool
from mmengine.config import Config

from simclr_mm.commands.band_statistics import command, measuring
from simclr_mm.commands.band_statistics.measuring import measure
from simclr_mm.commands.band_statistics.statistics import SHARES, BandStatistics
from simclr_mm.errors import UserError

RNG = np.random.default_rng(0)
CONFIG = CONFIGS / 'simclr_r18-w16_1xb64-adam-30e_bands-32px.py'
PHASES = 'train', 'val', 'test'


def images(kind):
    """Seven images of several sizes, three bands."""
    shapes = [(5 + k, 9 - k, 3) for k in range(7)]
    if kind == 'whole':  # a large offset, of which float32 sums would lose the variance
        return [60_000 + RNG.integers(0, 9, shape).astype(np.float32) for shape in shapes]
    if kind == 'bytes':
        return [RNG.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    found = [RNG.normal(0, 10 ** RNG.uniform(-3, 4), shape).astype(np.float32) for shape in shapes]
    return [np.round(found[0]), *found[1:], np.array([[[-0.0, 0.0, 1e30]] * 3] * 3, np.float32)]


@pytest.mark.parametrize('kind', ['whole', 'bytes', 'fractions'])
def test_statistics_are_those_of_all_pixels_at_once(kind):
    some = images(kind)
    statistics = BandStatistics(3)
    for img in some:
        statistics.add(img)
    pixels = np.concatenate([img.reshape(-1, 3) for img in some]).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, pixels.std(0), rtol=1e-12)
    assert (statistics.lowest == pixels.min(0)).all()
    assert (statistics.highest == pixels.max(0)).all()
    expected = np.percentile(pixels, SHARES, axis=0, method='inverted_cdf')
    found = statistics.percentiles()
    if kind == 'fractions':
        assert (np.abs(found - expected) <= np.abs(expected) / 512).all()
    else:
        assert (found == expected).all()


def test_an_interrupted_call_continues(tmp_path, monkeypatch):
    some = images('whole')
    for place, img in enumerate(some):
        np.save(tmp_path / f'{place}.npy', img)
    (tmp_path / '4b.npy').write_bytes(b'\x93NUMPY broken')
    out = tmp_path / 'out' / 'bands.py'
    monkeypatch.setattr(measuring, '_SAVE_EVERY', 0)
    added = []
    add = BandStatistics.add

    def until_the_sixth(self, img):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(img)
        add(self, img)

    monkeypatch.setattr(BandStatistics, 'add', until_the_sixth)
    loading = dict(layout='HWC')
    with pytest.raises(KeyboardInterrupt):
        measure([str(tmp_path)], loading, out)
    with pytest.raises(UserError, match='other images or settings.*--restart'):
        measure([str(tmp_path)], dict(loading, bands=[0]), out)
    monkeypatch.setattr(BandStatistics, 'add', lambda *args: (added.append(args[1]), add(*args)))
    measured, unreadable = measure([str(tmp_path)], loading, out)
    assert len(added) == len(some)  # each once
    pixels = np.concatenate([img.reshape(-1, 3) for img in some]).astype(np.float64)
    np.testing.assert_allclose(measured.std, pixels.std(0), rtol=1e-12)
    assert len(unreadable) == 1 and '4b.npy' in unreadable[0]
    assert not list(out.parent.glob('.*'))


def test_the_command_completes_a_config(tmp_path, capsys):
    for place in range(3):
        np.save(tmp_path / f'{place}.npy', RNG.integers(0, 2**16, (6, 7, 5)).astype(np.uint16))
    out = tmp_path / 'mine.py'
    args = tmp_path, '--out', out, '--base', CONFIG, '--bands', 4, 1, '--workers', 0
    tool('band_statistics.py', *args)
    assert 'mean and std of 2 band(s)' in capsys.readouterr().out
    pixels = [np.load(path)[..., [4, 1]] for path in sorted(tmp_path.glob('*.npy'))]
    pixels = np.concatenate(pixels).reshape(-1, 2).astype(np.float64)
    cfg = Config.fromfile(out)
    np.testing.assert_allclose(cfg.data_preprocessor.mean, pixels.mean(0), rtol=1e-8)
    np.testing.assert_allclose(cfg.data_preprocessor.std, pixels.std(0), rtol=1e-8)
    assert cfg.model.backbone.in_channels == 2 and cfg.model.backbone.depth == 18
    jitter = cfg.train_dataloader.dataset.pipeline[1].transforms[0]
    assert jitter.std == cfg.data_preprocessor.std
    for phase in ('train', 'val', 'test'):
        loading = cfg[f'{phase}_dataloader'].dataset.pipeline[0]
        assert loading == dict(type='simclr_mm.LoadBands', bands=[4, 1])


def test_the_base_reads_the_bands_its_own_way(tmp_path, capsys):
    np.save(tmp_path / 'a.npy', RNG.integers(0, 2**10, (6, 7, 5)).astype(np.uint16))
    base, out = tmp_path / 'base.py', tmp_path / 'mine.py'
    window = dict(window=[300.0, 200.0], bands=[3, 0])
    steps = [f'_base_.{phase}_dataloader.dataset.pipeline[0].update({window})' for phase in PHASES]
    base.write_text('\n'.join([f'_base_ = {str(CONFIG)!r}', *steps]))
    tool('band_statistics.py', tmp_path, '--out', out, '--base', base, '--workers', 0)
    pixels = np.load(tmp_path / 'a.npy')[..., [3, 0]].clip(200, 399).reshape(-1, 2)
    cfg = Config.fromfile(out)
    np.testing.assert_allclose(cfg.data_preprocessor.mean, pixels.mean(0), rtol=1e-8)
    assert cfg.test_dataloader.dataset.pipeline[0].bands == [3, 0] and 'load_bands' not in cfg

    tool('band_statistics.py', tmp_path, '--out', out, '--base', base, '--bands', 1)
    pixels = np.load(tmp_path / 'a.npy')[..., [1]].clip(200, 399).reshape(-1, 1)
    cfg = Config.fromfile(out)  # a flag goes before, and the window stays
    np.testing.assert_allclose(cfg.data_preprocessor.mean, pixels.mean(0), rtol=1e-8)
    assert cfg.test_dataloader.dataset.pipeline[0]['window'] == [300.0, 200.0]

    # So does its limit of pixels, which OUT keeps. An image has 42.
    for most in (42, 41):
        limit = [step.replace('{', f'{{"max_pixels": {most}, ') for step in steps]
        limit[0] = limit[0].replace('{', '{"layout": "auto", ')  # as the others, by default
        base.write_text('\n'.join([f'_base_ = {str(CONFIG)!r}', *limit]))
        if most == 42:
            tool('band_statistics.py', tmp_path, '--out', out, '--base', base, '--bands', 1)
            assert Config.fromfile(out).test_dataloader.dataset.pipeline[0]['max_pixels'] == 42
    said = refusal('band_statistics.py', tmp_path, '--out', out, '--base', base)
    assert 'none of 1 images can be read' in said and 'max_pixels = 41' in said

    base.write_text('\n'.join([f'_base_ = {str(CONFIG)!r}', steps[0]]))
    said = refusal('band_statistics.py', tmp_path, '--out', out, '--base', base)
    assert 'its pipelines read bands in different ways' in said


def test_a_folder_of_two_lines_is_one_comment(tmp_path):
    folder, out = tmp_path / 'two\nlines = 1', tmp_path / 'x.py'
    folder.mkdir()
    np.save(folder / 'a.npy', np.ones((6, 6, 4)))
    tool('band_statistics.py', folder, '--out', out, '--workers', 0)
    assert 'lines' not in Config.fromfile(out)


def test_a_base_without_bands_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(command, 'measure', None)
    base = 'simclr_r18-w16_1xb64-coslr-30e_digits'
    said = refusal('band_statistics.py', tmp_path, '--base', base, '--out', tmp_path / 'x.py')
    assert 'no pipeline of it has simclr_mm.LoadBands' in said


def test_files_of_other_bands_and_no_files_are_named(tmp_path):
    np.save(tmp_path / 'a.npy', np.ones((6, 6, 4)))
    np.save(tmp_path / 'b.npy', np.ones((6, 6, 5)))
    with pytest.raises(UserError, match=r'b.npy has 5 band\(s\), but .*a.npy has 4'):
        measure([str(tmp_path)], {}, tmp_path / 'x.py')
    with pytest.raises(UserError, match=r'b.npy has 5 band\(s\), but .*a.npy has 4'):
        measure([str(tmp_path)], {}, tmp_path / 'x.py', workers=2)


@pytest.mark.parametrize('workers', [0, 2])
def test_files_of_two_depths_are_named(tmp_path, workers):
    np.save(tmp_path / 'a.npy', np.ones((6, 6, 4), np.uint8))  # each worker sees one depth
    np.save(tmp_path / 'b.npy', np.ones((6, 6, 4), np.uint16))
    with pytest.raises(UserError, match='a.npy has values of 8 bits, and .*b.npy of more'):
        measure([str(tmp_path)], {}, tmp_path / 'x.py', workers=workers)
