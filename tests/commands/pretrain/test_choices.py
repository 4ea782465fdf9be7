"""Which recipe a folder and a machine get."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from simclr_mm.commands.pretrain.choices import Choice, choose, read_from_files, with_epochs
from simclr_mm.commands.pretrain.recipe_config import config_text
from simclr_mm.commands.pretrain.surroundings import Machine, Pictures, look_at, machine
from simclr_mm.errors import UserError

CPU = Machine('cpu', '2 cores, no GPU', 0, 16 << 30, 2, 'float32')
GPU = Machine('cuda', 'a GPU', 24 << 30, 64 << 30, 16, 'bf16')
PHOTOS = Pictures(Path('photos'), None, 500, (300, 400, 900), 0.0, {})


def save(path, size=(40, 30), grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = () if grey else (3,)
    values = np.random.default_rng(0).integers(256, size=(size[1], size[0], *bands), dtype='u1')
    Image.fromarray(values).save(path)


# --- Looking -----------------------------------------------------------------------------


def test_sides_and_colours(tmp_path):
    for i, side in enumerate((30, 50, 200)):
        save(tmp_path / f'{i}.png', (side + 10, side), grey=i == 0)
    found = look_at(tmp_path)
    assert (found.number, found.sides, found.classes) == (3, (30, 50, 200), {})
    assert found.grey == pytest.approx(1 / 3)


def test_a_grey_jpeg_in_colour_is_grey(tmp_path):
    ramp = np.tile(np.arange(96, dtype='u1')[:, None, None], (1, 96, 3))
    Image.fromarray(ramp).save(tmp_path / 'a.jpg')
    assert look_at(tmp_path).grey == 1


def test_folders_with_five_images_each_are_classes(tmp_path):
    for name, number in (('a', 5), ('b', 6)):
        for i in range(number):
            save(tmp_path / 'inner' / name / f'{i}.png')
    found = look_at(tmp_path)
    assert found.root == tmp_path / 'inner' and found.classes == {'a': 5, 'b': 6}
    save(tmp_path / 'inner' / 'c' / '0.png')  # one image cannot be asked and answered
    assert look_at(tmp_path).classes == {}


def test_an_image_outside_the_folders_has_no_class(tmp_path):
    for name in 'ab':
        for i in range(5):
            save(tmp_path / name / f'{i}.png')
    assert look_at(tmp_path).classes
    save(tmp_path / 'loose.png')
    assert not look_at(tmp_path).classes


@pytest.mark.parametrize('others', ['ab', 'ac'])
def test_train_and_val(others, tmp_path):
    for part, names in (('train', 'ab'), ('val', others)):
        for name in names:
            for i in range(5):
                save(tmp_path / part / name / f'{i}.png')
    found = look_at(tmp_path)
    assert (found.root, found.held_out) == (tmp_path / 'train', tmp_path / 'val')
    assert found.number == 10 and bool(found.classes) == (others == 'ab')


def test_no_image_can_be_read(tmp_path):
    (tmp_path / 'a.jpg').write_text('no image')
    with pytest.raises(UserError, match='none of 1 images can be read'):
        look_at(tmp_path)


def test_this_machine():
    found = machine()
    assert found.cores >= 1 and found.free_memory > 0
    assert found.numbers.split(',')[0] in ('bf16', 'float32')


# --- Choosing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('where', 'median', 'minutes', 'side'),
    [
        (CPU, 400, 2, 64),
        (CPU, 400, 60, 96),
        (CPU, 40, 60, 32),
        (CPU, 8, 60, 32),
        (GPU, 400, 30, 128),
        (GPU, 400, 120, 224),
        (GPU, 100, 120, 96),
    ],
)
def test_side_of_the_views(where, median, minutes, side):
    pictures = PHOTOS._replace(sides=(median, median, median))
    assert choose(pictures, where, minutes).view.value == side


@pytest.mark.parametrize(
    ('count', 'where', 'batch'),
    [(32, CPU, 16), (255, CPU, 32), (256, CPU, 64), (10**5, CPU, 128), (10**5, GPU, 256)],
)
def test_batch_is_a_quarter_of_the_images_at_most(count, where, batch):
    assert choose(PHOTOS._replace(number=count), where, 30).batch.value == batch


def test_too_few_images():
    with pytest.raises(UserError, match='photos holds 31 images'):
        choose(PHOTOS._replace(number=31), CPU, 30)


def test_images_that_exceed_a_quarter_of_the_memory_stay_in_files():
    size = 500 * 96**2 * 3  # views of 64 px from images of 96 px
    assert choose(PHOTOS, CPU._replace(free_memory=4 * size + 4), 2).images.value == 'memory'
    recipe = choose(PHOTOS, CPU._replace(free_memory=4 * size), 2)
    assert (recipe.images.value, recipe.workers.value) == ('files', 1)


@pytest.mark.parametrize(
    ('minutes', 'step', 'epochs'), [(1, 1.0, 8), (1, 0.5, 17), (600, 0.01, 500)]
)
def test_epochs_fill_the_time(minutes, step, epochs):
    recipe = choose(PHOTOS, CPU, minutes)  # 500 images in batches of 64: 7 steps
    assert with_epochs(recipe, 500, minutes, step).epochs.value == epochs


def test_too_little_time_names_enough():
    with pytest.raises(UserError, match=r'an epoch takes 0\.7 minutes .*give --minutes 7 for ten'):
        with_epochs(choose(PHOTOS, CPU, 1), 500, 1, 6.0)


# --- The config --------------------------------------------------------------------------


def config(pictures=PHOTOS, where=CPU, minutes=2, **chosen):
    recipe = replace(choose(pictures, where, minutes), **chosen)
    return Config.fromstring(config_text(recipe, pictures, "it's/run", 7), '.py'), recipe


def test_a_config_has_what_was_chosen():
    cfg, recipe = config(epochs=Choice(30, ''))
    views = cfg.train_dataloader.dataset.pipeline[0]
    assert (views.size, cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (64, 30, 64)
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 3
    assert (cfg.work_dir, cfg.randomness.seed) == ("it's/run", 7)
    assert cfg.model.backbone == dict(type='ResNet', depth=18, stem_channels=16, base_channels=16)
    assert [step.type for step in views.transforms] == ['simclr_mm.ColorDistortion']
    assert cfg.val_evaluator.type == 'simclr_mm.LabelFreeMetrics'
    assert len(recipe.lines()) == 6 and all(': ' in line for line in recipe.lines())


def test_grey_images_have_no_colours_to_change():
    cfg, _ = config(PHOTOS._replace(grey=0.95))
    (step,) = cfg.train_dataloader.dataset.pipeline[0].transforms
    assert (step.type, step.saturation, step.hue) == ('simclr_mm.ColorJitter', 0, 0)


def test_large_views_are_blurred():
    cfg, _ = config(where=GPU)
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline[0].transforms]
    assert steps == ['simclr_mm.ColorDistortion', 'simclr_mm.RandomGaussianBlur']


@pytest.mark.parametrize('held_out', [None, 'val'])
@pytest.mark.parametrize('from_files', [False, True])
def test_labels_by_folder_are_for_knn_only(held_out, from_files, tmp_path):
    other = None if held_out is None else tmp_path / held_out
    pictures = PHOTOS._replace(root=tmp_path, held_out=other, classes=dict(a=6, b=494))
    recipe = choose(pictures, CPU, 2)
    if from_files:
        recipe = read_from_files(recipe, CPU, 'why')
    cfg = Config.fromstring(config_text(recipe, pictures), '.py')
    assert 'with_label' not in cfg.train_dataloader.dataset
    data = cfg.test_dataloader.dataset
    assert (cfg.val_evaluator is None) == from_files  # an image of them cannot be read
    assert (data.type, cfg.test_evaluator.k) == ('simclr_mm.GalleryAndQuery', 4)
    if held_out is None:
        assert data.query.pop('rest') is True and data.query == data.gallery
        assert data.gallery.share == 0.8 and data.gallery.dataset.with_label
    else:
        assert data.query.data_root == str(other) and data.gallery.data_root == str(tmp_path)
    loads = [step.type for step in data.pipeline] + [
        step.type for step in cfg.train_dataloader.dataset.pipeline
    ]
    assert loads.count('simclr_mm.LoadImageFromFile') == 2 * from_files
