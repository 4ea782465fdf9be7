"""The hub folder: opened by timm and transformers as their users do."""

import importlib.util
import json

import numpy as np
import pytest
import torch
import yaml
from helpers import CONFIGS
from helpers.models import shaken
from helpers.tools import refusal, tool
from mmengine.config import Config
from PIL import Image
from torchvision.transforms import v2  # noqa: F401, of code that is evaluated

import simclr_mm
from simclr_mm.apis import FeatureInferencer
from simclr_mm.commands.export.backbone import read_backbone
from simclr_mm.commands.export.verified import TARGETS, export
from simclr_mm.errors import CheckpointError

timm = pytest.importorskip('timm')
safetensors = pytest.importorskip('safetensors')
NARROW = dict(type='ResNet', depth=18, base_channels=16)


def save(path, normalised, backbone=NARROW):
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / 'simclr_r18_1xb256-adam-100e_in1k-128px.py')
    cfg.model.backbone = backbone
    if not normalised:  # as the configs for small images have it
        cfg.data_preprocessor.update(mean=[0.0] * 3, std=[255.0] * 3)
    cfg.test_dataloader.dataset.pipeline[1].scale = 72
    cfg.test_dataloader.dataset.pipeline[2].crop_size = 64
    state = shaken(simclr_mm.get_model(cfg)).state_dict()
    torch.save(dict(state_dict=state, meta=dict(cfg=cfg.pretty_text, epoch=3)), path)
    return str(path)


@pytest.fixture(scope='module', params=[True, False], ids=['mean and std', 'pixels in [0, 1]'])
def exported(request, tmp_path_factory):
    """Folder and encoder."""
    folder = tmp_path_factory.mktemp('hub')
    path = save(folder / 'a.pth', request.param)
    tool('export.py', path, '--to', 'hf')
    return folder / 'a_hf', read_backbone(path)[0]


@pytest.fixture(scope='module')
def pictures():
    """Two, because kernels for a batch of one may round differently; their crops are odd."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 90, 131, 3), np.uint8)
    return list(map(Image.fromarray, pixels))


def compare(found, encoder, pictures):
    assert torch.equal(found, torch.from_numpy(FeatureInferencer(encoder)(pictures)))


@torch.no_grad()
def test_timm_opens_it(exported, pictures):
    folder, encoder = exported
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    assert model.num_features == 128
    model.to(memory_format=torch.channels_last)
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    compare(model(torch.stack(list(map(preprocess, pictures)))), encoder, pictures)
    pixels = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(pixels), encoder.features(pixels))


@torch.no_grad()
def test_transformers_opens_it(exported, pictures, monkeypatch):
    transformers = pytest.importorskip('transformers', reason='run by hand: it takes 150 MB')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    folder, encoder = exported
    model = transformers.AutoModel.from_pretrained(folder)
    model.to(memory_format=torch.channels_last)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    found = model(**processor(pictures, return_tensors='pt')).pooler_output
    compare(found, encoder, pictures)
    pixels = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(pixels).pooler_output, encoder.features(pixels))


@torch.no_grad()
def test_one_image_alone_has_the_same_feature_in_every_way(exported, pictures, tmp_path):
    folder, encoder = exported
    checkpoint, file = folder.parent / 'a.pth', tmp_path / 'images' / 'a.png'
    file.parent.mkdir()
    pictures[0].save(file)
    tool('embed.py', checkpoint, file.parent, '--out', tmp_path / 'out', '--workers', 0)
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    model.to(memory_format=torch.channels_last)
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    whole = simclr_mm.get_model(encoder.config, pretrained=checkpoint)
    found = dict(
        get_model=simclr_mm.inference_model(whole, file)['feature'],
        inferencer=FeatureInferencer(encoder)(file)[0],
        of_arrays=FeatureInferencer(encoder)(np.array(pictures[0])[..., ::-1])[0],
        sklearn=simclr_mm.SimCLREncoder(pretrained=checkpoint).fit(None).transform([file])[0],
        embed=np.load(tmp_path / 'out' / 'features.npy')[0],
        timm=model(preprocess(pictures[0])[None])[0].numpy(),
    )
    if importlib.util.find_spec('transformers'):
        from transformers import AutoImageProcessor, AutoModel

        model = AutoModel.from_pretrained(folder).to(memory_format=torch.channels_last)
        pixels = AutoImageProcessor.from_pretrained(folder)(pictures[0], return_tensors='pt')
        found['transformers'] = model(**pixels).pooler_output[0].numpy()
    for way, feature in found.items():
        assert feature.tobytes() == found['get_model'].tobytes(), way
    if importlib.util.find_spec('onnxruntime'):
        session = onnx_session(encoder, tmp_path / 'a.onnx')
        crop = encoder.preprocessing.torchvision(normalise=False)
        (feature,) = session.run(None, {'images': eval(crop)(pictures[0])[None].numpy()})
        np.testing.assert_allclose(feature[0], found['get_model'], rtol=0, atol=1e-5)


def onnx_session(encoder, file):
    import onnxruntime

    export(encoder, 'onnx', file)
    return onnxruntime.InferenceSession(str(file))


def test_what_it_holds(exported):
    folder, encoder = exported
    assert {each.name for each in folder.iterdir()} == {
        *('README.md', 'config.json', 'model.safetensors')
    }
    assert [each.name for each in folder.parent.iterdir() if each.name.startswith('.')] == []
    _, front, body = (folder / 'README.md').read_text().split('---\n', 2)
    assert yaml.safe_load(front)['library_name'] == 'timm'
    assert f'local-dir:{folder}' in body
    assert 'for equal pixels features in timm are bit-identical' in body
    config = json.loads((folder / 'config.json').read_text())
    assert config['simclr_mm']['source'] == 'a.pth'


def test_it_replaces_itself_and_nothing_else(exported):
    folder, encoder = exported
    before = (folder / 'model.safetensors').stat().st_mtime_ns
    export(encoder, 'hf', folder)
    assert (folder / 'model.safetensors').stat().st_mtime_ns > before
    (folder.parent / 'other').mkdir()
    (folder.parent / 'other' / 'mine.txt').touch()
    checkpoint = folder.parent / 'a.pth'
    for place in (folder.parent / 'other', checkpoint):
        said = refusal('export.py', checkpoint, '--to', 'hf', place)
        assert 'is a file or holds other files: name a new folder' in said


def test_a_failed_verification_leaves_no_folder(tmp_path, monkeypatch):

    class Faulty(type(TARGETS['hf'])):
        def files(self, encoder, metadata):
            files = super().files(encoder, metadata)
            return files | {'config.json': files['config.json'].replace(b'0.485', b'0.475')}

    encoder = read_backbone(save(tmp_path / 'a.pth', True))[0]
    monkeypatch.setitem(TARGETS, 'hf', Faulty())
    with pytest.raises(CheckpointError, match='features differ by'):
        export(encoder, 'hf', tmp_path / 'out')
    assert [each.name for each in tmp_path.iterdir()] == ['a.pth']
