"""Twelve bands of 16 bits, from TIFF files to an export, with a signal that 8 bits do not hold."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers.tools import refusal, tool
from mmengine.config import Config

from simclr_mm.apis import FeatureInferencer, load_encoder
from simclr_mm.checkpoints import load_file
from simclr_mm.commands.evaluate.image_features import training_set
from simclr_mm.models import pooled
from simclr_mm.visualization.views import make_views

tifffile = pytest.importorskip('tifffile')

BANDS, SIDE = 12, 32
CONFIG = 'simclr_r18-w16_1xb64-adam-30e_bands-32px'
TINY = [
    'train_dataloader.batch_size=16',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'model.backbone.base_channels=8',
    'model.backbone.stem_channels=8',
    'default_hooks.checkpoint.interval=1',
    'train_dataloader.dataset.pipeline.1.scale=[0.5,1.0]',
]


def picture(rng, kind):
    """A pattern in the last three bits of band 9. Other bands have noise and hot pixels."""
    values = rng.integers(0, 256, (BANDS, SIDE, SIDE))
    hot = rng.integers(0, SIDE, (2, BANDS))
    values[np.arange(BANDS), hot[0], hot[1]] = 2**16 - 1
    waves = np.arange(SIDE) * np.pi / 2 + rng.uniform(0, 2 * np.pi)
    stripes = np.broadcast_to(np.sin(waves), (SIDE, SIDE))
    pattern = [stripes, stripes.T, stripes * stripes.T][kind]
    values[9] = 40_000 + np.where(pattern > 0, 7, 0)  # 40,000 is a multiple of 8
    return values.astype(np.uint16)


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    """The set as TIFF, and bands 9, 4 and 0 of it as PNG of 8 bits."""
    deep, shallow = (tmp_path_factory.mktemp(name) for name in ('deep', 'shallow'))
    rng = np.random.default_rng(0)
    for part, count in (('train', 40), ('val', 20)):
        for kind in range(3):
            for place in (deep, shallow):
                (place / part / str(kind)).mkdir(parents=True)
            for number in range(count):
                values = picture(rng, kind)
                name = f'{part}/{kind}/{number:02}'
                tifffile.imwrite(deep / f'{name}.tif', values, photometric='minisblack')
                eight = (values[[9, 4, 0]] >> 8).astype(np.uint8)
                cv2.imwrite(str(shallow / f'{name}.png'), eight.transpose(1, 2, 0))
    return deep, shallow


@pytest.fixture(scope='module')
def run(places, tmp_path_factory):
    """Statistics, an epoch, and after a resume one more: the config and the work_dir."""
    folder = tmp_path_factory.mktemp('run')
    config, work_dir = folder / 'bands.py', folder / 'work'
    data = places[0] / 'train'
    tool('band_statistics.py', data, '--base', CONFIG, '--out', config, '--workers', 0)
    with config.open('a') as file:  # 56 steps are too few to learn that brightness means nothing
        file.write('_base_.train_dataloader.dataset.pipeline[1].transforms[0].prob = 0.0\n')
    train(config, places[0], work_dir, 1)
    train(config, places[0], work_dir, 2, '--resume')
    return config, work_dir


def train(config, place, work_dir, epochs, *more):
    options = [f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=4', *TINY]
    args = '--data', place / 'train', '--val', place, '--work-dir', work_dir, *more
    tool('train.py', config, *args, '--cfg-options', *options)


def best(work_dir):
    """The kNN accuracies of a run, the newest last."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for file in files for line in file.open()]
    return [line['knn/top1'] for line in lines if 'knn/top1' in line]


@pytest.mark.slow
def test_the_last_bits_of_a_band_are_learned_from(run, places, tmp_path):
    work_dir = shutil.copytree(run[1], tmp_path / 'deep')
    train(run[0], places[0], work_dir, 8, '--resume')
    train('simclr_r18-w16_1xb256-coslr-10e_cifar10', places[1], tmp_path / 'shallow', 4)
    # Chance is 33.
    assert best(work_dir)[-1] > 60 > best(tmp_path / 'shallow')[-1]


def test_the_way_from_file_to_feature_is_exact(run, places, tmp_path):
    config, work_dir = run
    checkpoint = work_dir / 'epoch_2.pth'
    encoder = load_encoder(checkpoint)
    paths = sorted((places[0] / 'val').rglob('*.tif'))
    values = np.stack([tifffile.imread(path) for path in paths]).astype(np.float64)
    train_values = [tifffile.imread(path) for path in (places[0] / 'train').rglob('*.tif')]
    pixels = np.stack(train_values).astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, BANDS)
    np.testing.assert_allclose(encoder.preprocessing.mean, pixels.mean(0), rtol=1e-7)
    np.testing.assert_allclose(encoder.preprocessing.std, pixels.std(0), rtol=1e-7)

    tool('embed.py', checkpoint, places[0] / 'val', '--out', tmp_path / 'e', '--workers', 0)
    found = np.load(tmp_path / 'e' / 'features.npy')
    crops = values.transpose(0, 2, 3, 1)  # as large as the views, so nothing is resized
    assert encoder.preprocessing.size == 32 and encoder.bands == BANDS
    normed = (crops - pixels.mean(0)) / pixels.std(0)
    images = torch.from_numpy(normed.transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        expected = pooled(encoder.model.extract_feat(images), encoder.model).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    arrays = [tifffile.imread(path).transpose(1, 2, 0) for path in paths]
    again = FeatureInferencer(encoder)(arrays, batch_size=64)
    np.testing.assert_allclose(again, found, rtol=0, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize(
    'target', ['safetensors', 'mmpretrain', pytest.param('onnx', marks=pytest.mark.slow)]
)
def test_exports_keep_the_bands(run, target, tmp_path):
    pytest.importorskip({'onnx': 'onnxscript'}.get(target, 'safetensors'))
    checkpoint = run[1] / 'epoch_2.pth'
    out = tmp_path / f'out.{dict(safetensors="safetensors", onnx="onnx").get(target, "pth")}'
    tool('export.py', checkpoint, out, '--to', target)  # compares features and weights itself
    card = out.with_suffix('.md').read_text()
    assert f'{BANDS} band(s) as in the files' in card
    mean = load_encoder(checkpoint).preprocessing.mean
    assert str(list(mean)) in card
    if target == 'mmpretrain':
        assert load_file(out)['meta']['preprocessing']['mean'] == list(mean)


def test_an_export_is_compared_within_the_window(run, tmp_path):
    file = torch.load(run[1] / 'epoch_2.pth', weights_only=False)
    cfg = Config.fromstring(file['meta']['cfg'], '.py')
    for phase in ('train', 'val', 'test'):
        cfg[f'{phase}_dataloader'].dataset.pipeline[0].window = (1000, 200)
    file['meta']['cfg'] = cfg.pretty_text
    torch.save(file, tmp_path / 'a.pth')
    tool('export.py', tmp_path / 'a.pth', tmp_path / 'b.safetensors', '--to', 'safetensors')
    assert 'as in the files, cut to [900, 1099]' in (tmp_path / 'b.md').read_text()


def test_what_needs_rgb_says_so(run, tmp_path):
    checkpoint = run[1] / 'epoch_2.pth'
    for target in ('torchvision', 'timm', 'hf', 'mmdet'):
        out = 'x' if target == 'hf' else 'x.pth'
        line = refusal('export.py', checkpoint, tmp_path / out, '--to', target)
        assert f'12 band(s) of simclr_mm.LoadBands, and --to {target} needs RGB' in line


def test_views_of_bands_are_drawn(run, places, tmp_path):
    args = run[0], '--data', places[0] / 'train', '--count', 1, '--out', tmp_path / 'views.png'
    tool('browse_views.py', *args)
    cfg = Config.fromfile(run[0])
    cfg.train_dataloader.dataset.data_root = str(places[0] / 'train')
    dataset = training_set(cfg)
    sample = make_views(dataset, 0, seed=0)
    values = tifffile.imread(sorted((places[0] / 'train').rglob('*.tif'))[0])[:3]
    low, high = np.percentile(values, (1, 99), axis=(1, 2))
    levels = [255 * (v - a) / (b - a) for v, a, b in zip(values, low, high)]
    expected = np.clip(np.stack(levels, -1), 0, 255)
    assert np.abs(sample.original - expected).max() <= 1  # rounded down
