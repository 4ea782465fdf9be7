"""scikit-learn's face of an encoder."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CONFIGS, DIGITS
from mmengine.config import Config
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

import simclr_mm
from simclr_mm import SimCLREncoder, get_model
from simclr_mm.apis import FeatureInferencer, load_encoder
from simclr_mm.apis.simclr_encoder import _stored
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.datasets import ImageList
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.transforms import LoadImageFromFile

DIGITS_TARGET = load_digits().target
QUICK = {
    'train_cfg.max_epochs': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'model.backbone.base_channels': 8,
    'log_level': 'WARNING',
}


@pytest.fixture(scope='module')
def images():
    """(1797, 8, 8, 3) uint8 RGB; red and blue differ."""
    grey = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey], axis=-1)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = simclr_mm.get_model(str(DIGITS), backbone=dict(base_channels=8))
    path = tmp_path_factory.mktemp('weights') / 'digits.pth'
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture
def files(images, tmp_path):
    """The first 70 images as files, one name with a comma, a quote and a line break."""
    folder = tmp_path / 'files'
    folder.mkdir()
    paths = [folder / f'{row:02}.png' for row in range(69)] + [folder / '69 "a,\nb.png']
    for path, image in zip(paths, images):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


# --- Features -------------------------------------------------------------------------


def test_one_feature_by_every_way(images, files, weights, tmp_path):
    encoder = SimCLREncoder(pretrained=weights).fit(None)
    features = encoder.transform(files)
    assert features.shape == (70, 64) and features.dtype == np.float32
    folder = Path(files[0]).parent
    for same in (folder, str(folder), np.array(files), images[:70], tuple(map(Path, files))):
        np.testing.assert_array_equal(encoder.transform(same), features)
    bgr = SimCLREncoder(pretrained=weights, color_order='BGR').fit(None)
    np.testing.assert_array_equal(bgr.transform(images[:70, ..., ::-1]), features)

    inferencer = FeatureInferencer(load_encoder(weights))
    np.testing.assert_array_equal(inferencer(files), features)
    embed_folder(inferencer, folder, tmp_path / 'out', batch_size=32)
    np.testing.assert_array_equal(np.load(tmp_path / 'out/features.npy'), features)

    model = simclr_mm.get_model(str(DIGITS), weights, backbone=dict(base_channels=8))
    larger = [np.asarray(Image.open(file).resize((16, 16), 0)) for file in files[:32]]
    exact = SimCLREncoder(pretrained=weights).fit(None).transform(np.stack(larger))
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack(larger)).permute(0, 3, 1, 2) / 255
        np.testing.assert_array_equal(model.extract_feat(pixels).numpy(), exact)


def test_a_fitted_pipeline_is_pickled(images, weights):
    before = make_pipeline(SimCLREncoder(pretrained=weights), LogisticRegression(max_iter=500))
    before.fit(images[:100], DIGITS_TARGET[:100])
    after = pickle.loads(pickle.dumps(before))
    shown = images[100:130]
    np.testing.assert_array_equal(after[0].transform(shown), before[0].transform(shown))
    np.testing.assert_array_equal(after.predict(shown), before.predict(shown))


def test_names_of_features(weights):
    names = SimCLREncoder(pretrained=weights).fit(None).get_feature_names_out()
    assert names[0] == 'simclrencoder0' and len(set(names)) == 64


def test_a_config_beside_weights(images, weights):
    config = Config.fromfile(DIGITS)
    config.model.backbone.base_channels = 8
    by_config = SimCLREncoder(config, pretrained=str(weights)).fit(None)
    alone = SimCLREncoder(pretrained=weights).fit(None)
    np.testing.assert_array_equal(by_config.transform(images[:3]), alone.transform(images[:3]))
    assert clone(by_config).config.model == config.model


def test_before_fit(images, weights):
    encoder = SimCLREncoder(pretrained=weights)
    for call in (lambda: encoder.transform(images), encoder.get_feature_names_out):
        with pytest.raises(NotFittedError):
            call()


# --- Training -------------------------------------------------------------------------


def test_files_and_an_array_train_alike(images, files, tmp_path):
    """Whichever way images come in, the views and so the weights are the same."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    quick = SimCLREncoder(str(DIGITS), options=QUICK, random_state=3, work_dir=tmp_path / 'run')
    trained = quick.fit(images[:70])
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before
    assert (tmp_path / 'run/epoch_4.pth').is_file()
    untrained = SimCLREncoder(Config.fromfile(tmp_path / 'run' / DIGITS.name))
    assert untrained.config.train_dataloader.dataset.type == 'simclr_mm.ArrayFile'

    features = trained.transform(images[:70])
    for encoder, same in (
        (clone(trained).set_params(work_dir=None), files),
        (clone(trained).set_params(work_dir=None, color_order='BGR'), images[:70, ..., ::-1]),
    ):
        assert not hasattr(encoder, 'encoder_')
        np.testing.assert_array_equal(encoder.fit(same).transform(same), features)
    other = clone(trained).set_params(work_dir=None, random_state=4).fit(files)
    assert np.abs(other.transform(files) - features).max() > 1e-3
    assert not Path(other.encoder_.source).exists()  # of the temporary folder
    loaded = SimCLREncoder(pretrained=tmp_path / 'run/epoch_4.pth').fit(None)
    np.testing.assert_array_equal(loaded.transform(files), features)


def test_a_step_of_a_pipeline_learns(images):
    encoder = SimCLREncoder(str(DIGITS), options=QUICK, random_state=0)
    pipeline = make_pipeline(encoder, LogisticRegression(max_iter=500))
    scores = cross_val_score(pipeline, images[:300], DIGITS_TARGET[:300], cv=2)
    assert scores.min() > 0.5  # chance is 0.1


# --- scikit-learn's own checks --------------------------------------------------------


class OfTables(SimCLREncoder):
    """Each row of a table becomes an image of 8 x 8 pixels.

    scikit-learn checks estimators with tables of numbers, and gives nothing but the check of
    cloning to one that takes none. Here the encoder gets what it takes, so every check that
    scikit-learn has for a transformer applies to its parameters, its fit, its transform and its
    pickle. What these checks find out about tables is validate_data's: that widths agree, that
    sparse, complex, NaN and empty tables are refused, and n_features_in_.
    """

    def _images(self, table, loading=LoadImageFromFile()):
        table = validate_data(self, table, reset=not hasattr(self, 'n_features_in_'))
        pixels = (37 * table.astype(float) % 256).astype(np.uint8)
        pixels = np.resize(pixels.T, (8 * 8 * 3, len(table))).T  # row by row the same numbers
        return super()._images(np.ascontiguousarray(pixels).reshape(-1, 8, 8, 3), loading)

    def fit(self, table, y=None):
        vars(self).pop('n_features_in_', None)
        self._images(table)  # with pretrained, fit ignores its images
        return super().fit(table)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = False
        tags.input_tags.two_d_array = True
        return tags


# Array API: needs the environment variable SCIPY_ARRAY_API before Python starts.
NOT_APPLICABLE = {'check_array_api_input'}


@pytest.mark.filterwarnings('ignore')
def test_scikit_learns_checks(weights):
    encoder = OfTables(pretrained=weights, random_state=0)
    results = check_estimator(encoder, on_fail=None, on_skip=None)
    assert len(results) > 40
    other = {each['check_name'] for each in results if each['status'] != 'passed'}
    assert other <= NOT_APPLICABLE, [each for each in results if each['check_name'] in other]


def test_the_check_of_the_encoder_itself(weights):
    with pytest.warns(match="Can't test estimator"):  # it takes no table
        check_estimator(SimCLREncoder(pretrained=weights))


# --- Mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(), 'config is None'),
        (dict(config='no_such_model'), 'no model is named no_such_model'),
        (dict(pretrained=True), 'needs a config'),
        (dict(config='r18_8xb512-linear-coslr-90e_in1k'), 'no config of a pretraining'),
        (dict(config=str(DIGITS), color_order='rgb'), "color_order is 'rgb'"),
        (dict(config=str(DIGITS), options={'tran_cfg.max_epochs': 1}), "no key 'tran_cfg'"),
        (dict(config=str(DIGITS), random_state='a'), 'random_state'),
        (dict(config=str(DIGITS)), 'batch'),  # 20 images, a batch of 64
    ],
)
def test_settings_that_do_not_fit(settings, message, images):
    with pytest.raises(UserError, match=message):
        SimCLREncoder(**settings).fit(images[:20])


def test_a_test_pipeline_without_a_size_ends_before_the_training(images, tmp_path):
    pad = {**QUICK, 'test_dataloader.dataset.pipeline': [dict(type='Pad', size=(9, 9))]}
    encoder = SimCLREncoder(str(DIGITS), options=pad, work_dir=tmp_path, random_state=0)
    states = np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(UserError, match="pipeline is .'Pad'"):
        encoder.fit(images[:70])
    assert not list(tmp_path.glob('*.pth'))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states


def test_fits_without_a_seed_differ(images, monkeypatch):
    """As in scikit-learn, they depend on NumPy's state, which goes on."""
    drawn = []

    def build(cfg):
        drawn.append(np.random.randint(2**31))  # as MMEngine draws a seed
        raise KeyboardInterrupt

    monkeypatch.setattr('simclr_mm.apis.simclr_encoder.build_runner', build)

    def fits(random_state=None):
        np.random.seed(5)
        drawn.clear()
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                SimCLREncoder(str(DIGITS), random_state=random_state).fit(images)
        return list(drawn)

    assert len(set(fits())) == 3 and fits() == fits()
    assert len(set(fits(random_state=0))) == 1  # the caller's state stays


def test_a_fit_that_only_loads_draws_nothing(weights):
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    SimCLREncoder(pretrained=weights).fit(None)
    assert np.random.get_state()[1].tolist() == before


def test_the_home_folder(images, weights, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    Image.fromarray(images[0]).save(tmp_path / 'a.png')
    encoder = SimCLREncoder(pretrained=weights).fit(None)
    expected = encoder.transform([tmp_path / 'a.png'])
    for place in ('~', ['~/a.png']):
        np.testing.assert_array_equal(encoder.transform(place), expected)


@pytest.mark.parametrize(
    'settings',
    [
        {'default_hooks.checkpoint': None},
        {'default_hooks.checkpoint.save_last': False, 'default_hooks.checkpoint.interval': 3},
        {
            'default_hooks.checkpoint.save_last': False,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.checkpoint.save_begin': 1,  # after epochs 1 and 3
        },
    ],
)
def test_a_training_that_keeps_no_last_weights_is_refused(images, tmp_path, settings):
    options = {**QUICK, **settings}  # 4 epochs
    (tmp_path / 'last_checkpoint').write_text('of_another_fit.pth')
    with pytest.raises(UserError, match='default_hooks.checkpoint saves none: leave it'):
        SimCLREncoder(str(DIGITS), options=options, work_dir=tmp_path).fit(images[:70])


def test_bands_come_from_files_alone(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'simclr_r18-w16_1xb64-adam-30e_bands-32px.py')
    torch.save(
        dict(state_dict=get_model(cfg).state_dict(), meta=dict(cfg=cfg.pretty_text)),
        tmp_path / 'bands.pth',
    )
    bands = cfg.model.backbone.in_channels
    values = np.random.default_rng(0).random((2, 40, 40, bands), np.float32)
    for i, img in enumerate(values):
        np.save(tmp_path / f'{i}.npy', img)
    encoder = SimCLREncoder(pretrained=tmp_path / 'bands.pth').fit(None)
    assert encoder.transform(tmp_path).shape == (2, 128)  # no ending of 8-bit pictures
    with pytest.raises(UserError, match='give paths of files, not an array'):
        encoder.transform(np.zeros((2, 40, 40, 3), np.uint8))
    with pytest.raises(UserError, match='give paths of files, not an array'):
        SimCLREncoder(cfg).fit(np.zeros((2, 40, 40, 3), np.uint8))


def test_names_of_features_of_tokens(tmp_path):
    cfg = Config.fromfile(DIGITS)
    shape = dict(embed_dims=24, num_layers=1, num_heads=1, feedforward_channels=8)
    cfg.model.backbone = dict(
        type='VisionTransformer', arch=shape, img_size=16, patch_size=8, out_type='raw'
    )
    torch.save(get_model(cfg).state_dict(), tmp_path / 'vit.pth')
    encoder = SimCLREncoder(cfg, pretrained=tmp_path / 'vit.pth').fit(None)
    assert len(encoder.get_feature_names_out()) == 24
    assert encoder.transform(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 24)


def test_each_fit_keeps_its_own_images(images, files, tmp_path):
    for X in (images[:2], images[1:3], images[:2], files, files[1:]):
        dataset = _stored(X, tmp_path)
    assert len(list(tmp_path.glob('images-*.npy'))) == 2
    assert len(list(tmp_path.glob('images-*.csv'))) == 2
    data = ImageList(dataset['places'], [])
    assert [data.get_data_info(k)['img_path'] for k in range(len(data))] == files[1:]


@pytest.mark.parametrize(
    'wrong, message',
    [
        (np.zeros((4, 8, 8)), r'got \(4, 8, 8\) float64'),
        (np.zeros((4, 8, 8, 4), np.uint8), r'got \(4, 8, 8, 4\) uint8'),
        (np.zeros((0, 8, 8, 3), np.uint8), r'got \(0, 8, 8, 3\)'),
        ([], 'got 0 of something else'),
        ([1, 2], 'got 2 of something else'),
        (None, r'got \(\) object'),
    ],
)
def test_what_is_no_image(wrong, message, weights):
    with pytest.raises(UserError, match=message):
        SimCLREncoder(pretrained=weights).fit(None).transform(wrong)


def test_a_folder_that_is_not_there(weights):
    with pytest.raises(MissingFileError, match='there is no folder'):
        SimCLREncoder(str(DIGITS)).fit('no/such/folder')
