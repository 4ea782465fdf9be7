"""One picture gives one result, whichever way it comes in."""
import mmcv
import numpy as np
import pytest
import torch
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from PIL import Image

from simclr_mm.apis import get_model, inference_model
from simclr_mm.transforms.loading import UnreadableImage

pytestmark = pytest.mark.portable
THIN = dict(backbone=dict(base_channels=8, stem_channels=8))


@pytest.fixture(scope='module')
def simclr():
    torch.manual_seed(0)
    return get_model('simclr_resnet18', **THIN)


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    return get_model(
        'r18_8xb512-linear-coslr-90e_in1k', head=dict(in_channels=64), **THIN)


@pytest.fixture
def photograph(imagenet_sample, tmp_path) -> str:
    """A photograph without the losses of JPEG, which decoders undo differently."""
    path = tmp_path / 'a.png'
    Image.open(next(imagenet_sample.rglob('*.JPEG'))).convert('RGB').save(path)
    return str(path)


def test_a_red_image_by_every_way(simclr, tmp_path):
    path = tmp_path / 'red.png'
    Image.new('RGB', (224, 224), (255, 0, 0)).save(path)
    red_bgr = np.zeros((224, 224, 3), np.uint8)
    red_bgr[..., 2] = 255
    mean = torch.tensor([123.675, 116.28, 103.53])
    std = torch.tensor([58.395, 57.12, 57.375])
    tensor = ((torch.tensor([255.0, 0.0, 0.0]) - mean) / std).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = simclr.extract_feat(tensor.expand(1, 3, 224, 224))[0].numpy()
    for image in (path, str(path), red_bgr, Image.open(path)):
        feature = inference_model(simclr, image)['feature']
        assert feature.shape == (64, )
        np.testing.assert_allclose(feature, expected, atol=1e-5)
    theirs = FeatureExtractor(simclr)(str(path))[0].numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-5)
    blue = inference_model(simclr, red_bgr[..., ::-1])['feature']
    assert np.abs(blue - expected).max() > 1e-3


def test_a_photograph_by_every_way(simclr, photograph):
    expected = FeatureExtractor(simclr)(photograph)[0].numpy()
    for image in (photograph, mmcv.imread(photograph), Image.open(photograph)):
        feature = inference_model(simclr, image)['feature']
        np.testing.assert_allclose(feature, expected, atol=1e-6)


def test_the_turn_in_exif_data(simclr, photograph, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    image = Image.open(photograph)
    image.save(tmp_path / 'turned.png', exif=exif)
    turned = inference_model(simclr, image.transpose(Image.Transpose.ROTATE_270))
    by_pil = inference_model(simclr, Image.open(tmp_path / 'turned.png'))
    np.testing.assert_array_equal(by_pil['feature'], turned['feature'])


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P'])
def test_other_modes_of_pil(simclr, photograph, tmp_path, mode):
    path = tmp_path / 'mode.png'
    Image.open(photograph).convert(mode).save(path)
    np.testing.assert_allclose(
        inference_model(simclr, Image.open(path))['feature'],
        inference_model(simclr, path)['feature'],
        atol=1e-5)


def test_a_class_is_mmpretrains(classifier, photograph):
    result = inference_model(classifier, photograph)
    expected = ImageClassificationInferencer(classifier)(photograph)[0]
    assert set(result) == set(expected)
    np.testing.assert_array_equal(result['pred_scores'], expected['pred_scores'])
    for key in ('pred_label', 'pred_score', 'pred_class'):
        assert result[key] == expected[key]
    assert len(result['pred_scores']) == 1000 and isinstance(result['pred_class'], str)


def test_classes_without_names(classifier, photograph, monkeypatch):
    monkeypatch.setattr(classifier, '_dataset_meta', {})
    assert 'pred_class' not in inference_model(classifier, photograph)


def test_a_model_left_in_training_mode(simclr, photograph):
    expected = inference_model(simclr, photograph)['feature']
    simclr.train()
    np.testing.assert_array_equal(
        inference_model(simclr, photograph)['feature'], expected)


def test_a_name_needs_published_weights(photograph):
    with pytest.raises(ValueError, match='simclr_resnet18 has no published weights'):
        inference_model('simclr_resnet18', photograph)


def test_what_is_no_image(simclr, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'text')
    with pytest.raises(UnreadableImage, match='a.jpg'):
        inference_model(simclr, tmp_path / 'a.jpg')
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match=r'\(height, width, 3\) uint8 in BGR'):
            inference_model(simclr, array)


def test_a_model_without_config(photograph):
    model = get_model('simclr_resnet18', **THIN)
    del model._config
    with pytest.raises(ValueError, match='build it with get_model'):
        inference_model(model, photograph)
