"""tools/embed.py, retrieve.py, plot_*.py and browse_views.py, as a user runs them."""

import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.tools import tool
from matplotlib.image import imread
from PIL import Image

from simclr_mm import get_model


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """(checkpoint with its config, folder of six images and an unreadable one)."""
    root = tmp_path_factory.mktemp('tools')
    torch.manual_seed(0)
    model = get_model(str(DIGITS))
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), root / 'a.pth')
    for k in range(6):
        (root / 'images' / 'ab'[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (12, 10), (40 * k, 0, 99)).save(root / 'images' / 'ab'[k % 2] / f'{k}.png')
    (root / 'images' / 'c.jpg').write_bytes(b'')
    return root / 'a.pth', root / 'images'


def test_embed_retrieve_and_plot(made, tmp_path, capsys):
    checkpoint, images = made
    index = tmp_path / 'index'
    tool('embed.py', checkpoint, images, '--out', index, '--workers', 0, '--device', 'cpu')
    said = capsys.readouterr().out
    assert '7 images of' in said and '1 of them are unreadable' in said
    assert np.load(index / 'features.npy').shape == (7, 128)

    tool(
        'retrieve.py',
        images / 'a' / '0.png',
        '--index',
        index,
        '-k',
        3,
        '--out',
        tmp_path / 'found.png',
    )
    said = capsys.readouterr().out
    assert 'a/2.png' in said and 'a/0.png' in said
    assert imread(tmp_path / 'found.png').shape[1] == pytest.approx(770, abs=2)

    tool('plot_embedding.py', index, '--method', 'pca', '--out', tmp_path / 'map.png')
    assert '6 images of 2 classes' in capsys.readouterr().out

    with pytest.raises(SystemExit, match='embed.py: error: .*the precision changed'):
        tool('embed.py', checkpoint, images, '--out', index, '--precision', 'bf16')


def test_pictures_of_a_config(made, tmp_path, capsys):
    checkpoint, _ = made
    tool(
        'plot_embedding.py',
        DIGITS,
        checkpoint,
        '--method',
        'pca',
        '--max-images',
        20,
        '--out',
        tmp_path / 'map.png',
    )
    assert '20 images of 10 classes' in capsys.readouterr().out
    tool(
        'plot_similarity.py', DIGITS, checkpoint, '--count', 5, '--out', tmp_path / 'similarity.png'
    )
    tool(
        'browse_views.py',
        DIGITS,
        '--index',
        0,
        7,
        '--out',
        tmp_path / 'views.png',
        '--cfg-options',
        'train_dataloader.dataset.pipeline.0.num_views=3',
    )
    assert 'images 0, 7' in capsys.readouterr().out
    assert imread(tmp_path / 'views.png').shape[1] == pytest.approx(1144, abs=2)


@pytest.mark.parametrize(
    'extra', [['a.pth'], ['--data', 'photos'], ['--cfg-options', 'model.head=None']]
)
def test_what_an_embedded_folder_does_not_take(extra, tmp_path):
    with pytest.raises(SystemExit, match='is an embedded folder: .* leave them out'):
        tool('plot_embedding.py', tmp_path, *extra)


@pytest.mark.parametrize(
    'command, message',
    [
        (['embed.py', 'no.pth', '.'], 'no.pth does not exist'),
        (['retrieve.py', 'a.png', '--index', '/tmp/absent'], 'holds no embedding.json'),
        (['plot_embedding.py', DIGITS], '/tools/embed.py wrote, or a config and a checkpoint'),
        (['plot_similarity.py', DIGITS, 'no.pth', '--count', '1'], '--count is 1'),
        (['browse_views.py', DIGITS, '--index', '-1'], 'no image -1'),
        (['browse_views.py', DIGITS, '--count', '100000'], 'a picture shows 100 at most'),
        (['retrieve.py', 'a.png', '--index', '.', '--config', 'a.py'], 'holds no embedding.json'),
    ],
)
def test_mistakes_end_in_one_line(command, message):
    with pytest.raises(SystemExit) as end:
        tool(*command)
    assert str(end.value).startswith(f'{command[0]}: error: ')
    assert message in str(end.value) and '\n' not in str(end.value)
