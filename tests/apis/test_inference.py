"""One picture gives one result, whichever way it comes in."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from PIL import Image

from simclr_mm.apis import get_model, inference_model
from simclr_mm.apis.inference import FeatureInferencer, image_paths, read_picture
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.transforms import LoadBands
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
    return get_model('r18_8xb512-linear-coslr-90e_in1k', head=dict(in_channels=64), **THIN)


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
        assert feature.shape == (64,)
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
    np.testing.assert_array_equal(inference_model(simclr, photograph)['feature'], expected)


def test_a_model_that_trains_goes_on_training(simclr, photograph):
    inferencer = FeatureInferencer(simclr)
    expected = inferencer(photograph)
    state = {key: value.clone() for key, value in simclr.state_dict().items()}
    simclr.train()
    try:
        np.testing.assert_array_equal(inferencer(photograph), expected)
        inference_model(simclr, photograph)
        assert simclr.training and simclr.backbone.training
        simclr.backbone.eval()  # frozen
        inferencer(photograph)
        assert simclr.training and not simclr.backbone.training
    finally:
        simclr.eval()
    for key, value in simclr.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_path_that_leads_nowhere(simclr, photograph, monkeypatch):
    home = Path(photograph).parent
    monkeypatch.setenv('HOME', str(home))
    name = f'~/{Path(photograph).name}'
    np.testing.assert_array_equal(
        inference_model(simclr, name)['feature'], inference_model(simclr, photograph)['feature']
    )
    strange = home / '~nobody.png'
    strange.write_bytes(Path(photograph).read_bytes())
    monkeypatch.chdir(home)
    assert inference_model(simclr, '~nobody.png')['feature'].shape == (64,)
    for use in (FeatureInferencer(simclr), lambda path: inference_model(simclr, path)):
        with pytest.raises(MissingFileError, match=f'no file or folder {home}/absent$'):
            use('~/absent')
    (home / 'link.jpg').symlink_to(home / 'gone.jpg')
    with pytest.raises(UnreadableImage, match='a broken link: there is no .*gone.jpg'):
        inference_model(simclr, home / 'link.jpg')


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


# --- Many pictures ------------------------------------------------------------------


def test_every_kind_of_input_and_any_batch(simclr, photograph):
    array, image = mmcv.imread(photograph), Image.open(photograph)
    one = inference_model(simclr, photograph)['feature']
    inferencer = FeatureInferencer(simclr)
    for single in (photograph, Path(photograph), array, image):
        features = inferencer(single)
        assert features.shape == (1, 64) and features.dtype == np.float32
        np.testing.assert_allclose(features[0], one, atol=1e-5)
    mixed = [array[::-1].copy(), photograph, image]
    for batch_size in (1, 2, 3):
        features = inferencer(mixed, batch_size=batch_size)
        np.testing.assert_allclose(features[1:], [one, one], atol=1e-5)
        assert np.abs(features[0] - one).max() > 1e-4


def test_a_folder_at_any_depth(simclr, photograph, tmp_path):
    (tmp_path / 'b' / 'c').mkdir(parents=True)
    Image.new('RGB', (230, 230), (255, 0, 0)).save(tmp_path / 'b' / 'c' / 'red.png')
    (tmp_path / 'text.txt').write_text('not an image')
    assert image_paths(tmp_path) == [photograph, str(tmp_path / 'b' / 'c' / 'red.png')]
    inferencer = FeatureInferencer(simclr)
    np.testing.assert_array_equal(inferencer(tmp_path), inferencer(image_paths(tmp_path)))
    (tmp_path / 'b' / 'c' / 'red.png').write_bytes(b'x')
    with pytest.raises(UnreadableImage, match='red.png'):
        inferencer(str(tmp_path))


def test_bf16_is_close_and_returned_in_float32(simclr, photograph):
    exact = FeatureInferencer(simclr)(photograph)
    rough = FeatureInferencer(simclr, precision='bf16')(photograph)
    assert rough.dtype == np.float32 and not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.02 * np.abs(exact).max())
    assert next(simclr.parameters()).dtype == torch.float32


def test_compiled_features_are_the_same(simclr, photograph, monkeypatch):
    """The tracing is real; the C++ compiler behind it would take a minute."""
    compile = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda f: compile(f, backend='eager'))
    compiled = FeatureInferencer(simclr, compile=True)
    assert compiled.extract is not simclr.extract_feat
    np.testing.assert_allclose(
        compiled(photograph), FeatureInferencer(simclr)(photograph), atol=1e-6
    )


def test_features_of_a_classifier(classifier, photograph):
    """What its head gets: the scores follow from them."""
    feature = torch.from_numpy(FeatureInferencer(classifier)(photograph)[0])
    with torch.no_grad():
        scores = classifier.head.fc(feature).softmax(0).numpy()
    np.testing.assert_allclose(
        scores, inference_model(classifier, photograph)['pred_scores'], atol=1e-6
    )


def test_a_classifier_without_its_head(photograph):
    torch.manual_seed(0)
    model = get_model('r18_8xb512-linear-coslr-90e_in1k', head=None, **THIN)
    feature = inference_model(model, photograph)['feature']
    np.testing.assert_allclose(feature, FeatureInferencer(model)(photograph)[0], atol=1e-6)


@pytest.mark.parametrize('device', ['cuda:99', 'bogus', 'meta', 'hpu', 'privateuseone'])
def test_a_device_that_is_not_here(simclr, device):
    with pytest.raises(ValueError, match=f'no device {device} here'):
        FeatureInferencer(simclr, device=device)
    # mmengine's `to` notes the device in the preprocessor before it fails.
    assert simclr.data_preprocessor.device.type == 'cpu'


def test_wrong_arguments(simclr):
    with pytest.raises(ValueError, match='batch_size is 0'):
        FeatureInferencer(simclr)([], batch_size=0)
    with pytest.raises(UserError, match="batch_size is 'x': give a whole number"):
        FeatureInferencer(simclr)([], batch_size='x')
    with pytest.raises(UserError, match=r'got \(0, 4, 3\) uint8'):
        FeatureInferencer(simclr)(np.zeros((0, 4, 3), np.uint8))
    for bad, message in (
        ('half', "'half': choose one of fp32"),
        ([], 'choose one of fp32'),
        ('fp16', 'needs a GPU: on a CPU take bf16'),
    ):
        with pytest.raises(ValueError, match=message):
            FeatureInferencer(simclr, precision=bad)
    with pytest.raises(ValueError, match='list of images is empty'):
        FeatureInferencer(simclr)([])
    with pytest.raises(ValueError, match='got int'):
        FeatureInferencer(simclr)([7])
    with pytest.raises(UserError, match='a Linear is no model'):
        FeatureInferencer(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match='pretrained is empty'):
        get_model('simclr_resnet18', pretrained='')
    with pytest.raises(UserError, match='nowhere://a.png: MMEngine reads no images from there'):
        FeatureInferencer(simclr)('nowhere://a.png')


def test_an_array_of_bands_is_read_as_its_file(tmp_path):
    values = np.arange(60.0).reshape(4, 5, 3)
    values[0, 0] = np.nan
    np.save(tmp_path / 'a.npy', values)
    loading = LoadBands(window=(20, 11), nan=30.0)
    of_file, of_array = (
        read_picture(image, loading)['img'] for image in (tmp_path / 'a.npy', values)
    )
    assert np.array_equal(of_file, of_array) and of_array.max() == 24.5
    with pytest.raises(UserError, match='the array: has NaN'):
        read_picture(values, LoadBands())
