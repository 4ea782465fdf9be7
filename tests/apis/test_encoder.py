"""A checkpoint alone is enough to build its model, and an encoder knows where it is from."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import simclr_mm
from simclr_mm.apis import (
    FeatureInferencer,
    build_encoder,
    get_model,
    inference_model,
    load_encoder,
)
from simclr_mm.apis.loading import encoder_of
from simclr_mm.apis.model_zoo import find_config
from simclr_mm.commands.command_line import parser_of
from simclr_mm.commands.command_line.encoder_flags import ENCODER_FLAGS, inferencer_of
from simclr_mm.errors import CheckpointError

pytestmark = pytest.mark.portable
NAME = 'simclr_r18-w16_1xb256-coslr-10e_cifar10'


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """(model, checkpoint with its config, checkpoint without)."""
    torch.manual_seed(0)
    model = get_model(NAME)
    folder = tmp_path_factory.mktemp('encoder')
    state = model.state_dict()
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=state, meta=meta), folder / 'with.pth')
    torch.save(state, folder / 'without.pth')
    return model, folder / 'with.pth', folder / 'without.pth'


def test_by_the_stored_config_a_name_or_a_file(saved, tmp_path):
    model, with_config, without = saved
    model._config.dump(tmp_path / 'config.py')
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.extract_feat(images)
        for loaded in (
            load_encoder(with_config),
            load_encoder(without, NAME),
            load_encoder(without, tmp_path / 'config.py'),
        ):
            assert torch.equal(loaded.model.extract_feat(images), expected)


def test_models_of_data_in_memory_that_stay_rgb(tmp_path):
    """mmpretrain's CIFAR is RGB in memory, and its preprocessor leaves it so."""
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / 'red.png')
    encoder = build_encoder('resnet18_8xb16_cifar10')
    fed = []
    encoder.model.extract_feat = lambda x, **kwargs: fed.append(x) or (x.mean((2, 3)),)
    FeatureInferencer(encoder)([str(tmp_path / 'red.png')])
    preprocessor = encoder.model.data_preprocessor
    fed = fed[0] * preprocessor.std + preprocessor.mean
    assert fed.mean((0, 2, 3)).round().tolist() == [255, 0, 0]
    assert encoder.transform()['colours'] == 'RGB'


def test_gallery_and_queries_that_stay_rgb():
    cfg = find_config('resnet18_8xb16_cifar10')[0]
    theirs = cfg.test_dataloader.dataset
    steps = theirs.pop('pipeline')
    cfg.test_dataloader.dataset = dict(
        type='simclr_mm.GalleryAndQuery', gallery=theirs, query=theirs, pipeline=steps
    )
    assert build_encoder(cfg).stays_rgb
    cfg.data_preprocessor.to_rgb = True
    assert not build_encoder(cfg).stays_rgb


def test_our_data_in_memory_are_bgr(tmp_path):
    bgr = Config.fromfile(find_config(NAME)[0].filename)
    bgr.data_preprocessor.to_rgb = False
    encoder = build_encoder(bgr)
    assert 'colours' not in encoder.transform()
    blue = encoder.transforms(dict(img=np.full((32, 32, 3), [255, 0, 0], np.uint8)))
    assert blue['inputs'].float().mean((1, 2)).tolist() == [255, 0, 0]


def test_no_config_anywhere(saved):
    with pytest.raises(CheckpointError, match='without.pth does not hold.*--config'):
        load_encoder(saved[2])


def test_a_name_without_published_weights():
    with pytest.raises(ValueError, match=f'{NAME} has no published weights'):
        load_encoder(NAME)


def test_flags(saved):
    parser = parser_of('', 'checkpoint', *ENCODER_FLAGS)
    flags = ['--device', 'cpu', '--precision', 'bf16', '--config', NAME]
    inferencer = inferencer_of(parser.parse_args([str(saved[2]), *flags]))
    assert inferencer.precision == 'bf16' and inferencer.device == torch.device('cpu')


def test_where_an_encoder_comes_from(saved):
    encoder = load_encoder(saved[1])
    assert encoder.source == str(saved[1]) and encoder.name == 'with'
    assert encoder.training['meta']['cfg'] and 'state_dict' not in encoder.training
    assert load_encoder(saved[2], NAME).name == NAME == build_encoder(NAME).name
    assert build_encoder(NAME).source == ''
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder.source = 'x'
    stamped = torch.load(saved[1])
    stamped['meta']['experiment_name'] = '../my_run_20260101_010203'
    torch.save(stamped, saved[1].with_name('stamped.pth'))
    assert load_encoder(saved[1].with_name('stamped.pth')).name == 'my_run'


def test_a_model_and_its_encoder_are_used_alike(saved):
    model, encoder = get_model(NAME, saved[2]), load_encoder(saved[1])
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = inference_model(model, image)['feature']
    np.testing.assert_array_equal(inference_model(encoder, image)['feature'], expected)
    np.testing.assert_allclose(FeatureInferencer(encoder)(image)[0], expected, atol=1e-6)
    assert encoder_of(model).fingerprint() == encoder.fingerprint()
    assert encoder_of(encoder) is encoder


def test_features_depend_on_weights_and_transform(saved):
    encoder = load_encoder(saved[1])
    before = encoder.fingerprint()
    other = dataclasses.replace(encoder, pipeline=[*encoder.pipeline[1:]])
    assert other.fingerprint()['weights'] == before['weights']
    assert other.fingerprint()['transform'] != before['transform']
    encoder.model.data_preprocessor.mean += 1
    assert encoder.fingerprint()['transform'] != before['transform']
    with torch.no_grad():
        next(encoder.model.parameters())[0] += 1
    assert encoder.fingerprint()['weights'] != before['weights']


def test_a_checkpoint_of_ours_passes_few_files(saved):
    """From get_model to its weights, without the files that build the model."""
    package = Path(simclr_mm.__file__).parent
    seen = []

    def trace(frame, event, arg):
        file = Path(frame.f_code.co_filename)
        if package in file.parents and '.mim' not in file.parts:
            seen.append(str(file.relative_to(package)))

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        get_model(NAME, pretrained=saved[2])
    finally:
        sys.settrace(before)
    files = [file for file in dict.fromkeys(seen) if not file.startswith('models/')]
    assert len(files) <= 7, files
    assert not any(file.startswith(('commands', 'engine', 'checkpoints/foreign')) for file in files)
