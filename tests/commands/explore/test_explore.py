"""The page of an embedded folder: its numbers, and the page itself in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.tools import refusal, tool
from PIL import Image

from simclr_mm.apis import FeatureInferencer
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.explore.neighbourhoods import far_from_all, most_alike, nearest
from simclr_mm.commands.explore.thumbnails import sheets

HACK = 'document.body.dataset.hacked=1'
HOSTILE = (
    f'<img src=x onerror="{HACK}">.png',
    f'a/<{"/"}script><script>{HACK}<{"/"}script>.png',  # a folder may end in '<'
    f'{{{{data}}}} ${{{HACK}}} @{{x}} \'"&amp;.png',
    'a/\u202eright to left.png',
    'a/line\nbreak.png',
)


# --- Numbers --------------------------------------------------------------------------


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)


def cosines_of(features):
    wide = features.astype(float)
    lengths = [sum(v * v for v in row) ** 0.5 for row in wide]
    return np.array(
        [
            [sum(a * b for a, b in zip(x, y)) / (p * q) for y, q in zip(wide, lengths)]
            for x, p in zip(wide, lengths)
        ]
    )


def test_the_nearest_of_each(features, monkeypatch):
    monkeypatch.setattr('simclr_mm.commands.embed.retrieval._QUERIES', 7)
    found, expected = nearest(features, 4), cosines_of(features)
    for row, (rows, cosines) in enumerate(zip(found.rows, found.cosines)):
        others = sorted((j for j in range(40) if j != row), key=lambda j: -expected[row, j])
        assert rows.tolist() == others[:4]
        np.testing.assert_allclose(cosines, expected[row, rows], atol=1e-6)


def test_pairs_and_outliers(features):
    expected = cosines_of(features)
    pairs = sorted(((expected[i, j], i, j) for i in range(40) for j in range(i)), reverse=True)
    found = most_alike(nearest(features, 39), 9)
    assert [{i, j} for i, j, _ in found] == [{i, j} for _, i, j in pairs[:9]]
    assert found[0][2] == pytest.approx(pairs[0][0], abs=1e-6)
    means = {row: np.sort(expected[row])[-4:-1].mean() for row in range(40)}  # without itself
    far = far_from_all(nearest(features, 3), 5)
    assert [row for row, _ in far] == sorted(means, key=means.get)[:5]
    assert far[0][1] == pytest.approx(min(means.values()), abs=1e-6)


def test_each_picture_has_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr('simclr_mm.commands.explore.thumbnails._ON_A_SHEET', 9)
    colours = np.random.default_rng(0).integers(0, 256, (20, 3))
    pictures = [np.full((60, 200, 3), colour, np.uint8) for colour in colours]
    pictures[4] = str(tmp_path / 'gone.png')
    Image.fromarray(pictures[5]).save(tmp_path / '5.png')
    pictures[5] = str(tmp_path / '5.png')
    made = sheets(pictures, 20)
    assert (made.side, made.columns, len(made.images), made.unreadable) == (112, 3, 3, [4])
    for row, colour in enumerate(colours):
        image = made.images[row // 9].partition('base64,')[2]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))))
        top, left = 112 * (row % 9 // 3), 112 * (row % 3)
        middle = pixels[top + 50 : top + 62, left + 8 : left + 104].mean((0, 1))
        expected = (215, 215, 215) if row == 4 else colour
        np.testing.assert_allclose(middle, expected, atol=6)  # JPEG
        assert (pixels[top + 2, left + 50] > 200).all()  # above a wide picture


def test_bands_have_a_picture(tmp_path):
    values = np.random.default_rng(0).normal(1000, 50, (8, 9, 4))
    values[0, 0] = np.nan
    np.save(tmp_path / 'a.npy', values)
    assert sheets([str(tmp_path / 'a.npy')], 1).unreadable == []


def test_small_pictures_stay_small():
    made = sheets([np.zeros((8, 6, 3), np.uint8)] * 5, 5)
    assert (made.side, made.columns) == (8, 3)


# --- The page -------------------------------------------------------------------------


@pytest.fixture(scope='module')
def index(tmp_path_factory):
    """Embedded: 30 noisy images of three colours in two folders, and names that attack."""
    root = tmp_path_factory.mktemp('explore')
    folder = root / '<b>"images"'
    rng = np.random.default_rng(0)
    for row in range(30):
        path = folder / ('a', 'b')[row % 2] / f'{row:02}.png'
        path = folder / HOSTILE[row] if row < len(HOSTILE) else path
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (8, 8, 3)) + 190 * np.eye(3, dtype=int)[row % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / 'broken.png').write_bytes(b'')
    torch.manual_seed(0)
    encoder = FeatureInferencer(str(DIGITS), pretrained=False)
    embed_folder(encoder, folder, root / 'index')
    return root / 'index'


@pytest.fixture(scope='module')
def html(index):
    pytest.importorskip('bokeh')
    tool('explore.py', index, '--method', 'pca', '-k', 5)
    return (index / 'explore.html').read_text()


def data_in(html):
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1]
    assert '<' not in block
    return json.loads(block)


def test_what_the_page_holds(html, index):
    data = data_in(html)
    paths = json.loads((index / 'paths.json').read_text())
    features = np.load(index / 'features.npy')
    readable = np.isfinite(features[:, 0])
    assert len(data['names']) == 30 == readable.sum()
    shown = [name for name, kept in zip(paths, readable) if kept]
    different = [pair for pair in zip(data['names'], shown) if pair[0] != pair[1]]
    assert len(different) == 2  # no line break and no turn of direction
    assert [name for name, _ in different] == ['a/line\\nbreak.png', 'a/\\u202eright to left.png']
    rows = np.frombuffer(base64.b64decode(data['neighbours']), '<i4').reshape(30, 5)
    np.testing.assert_array_equal(rows, nearest(features[readable], 5).rows)
    folder, outer = data['groupings']
    assert outer['labels'] == ['a', 'b', '(top)']
    assert [outer['labels'][i] for i in outer['of']] == [
        name.split('/')[0] if '/' in name else '(top)' for name in data['names']
    ]
    assert f'a/</script><script>{HACK}<' in folder['labels']


def test_nothing_is_fetched(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].split()
    assert policy[:2] == ['default-src', "'none';"] and 'http' not in ' '.join(policy)
    assert '<title>&lt;b&gt;&quot;images&quot;</title>' in html
    assert not re.search(r'<(script|link|img)[^>]*\s(src|href)=', html.partition('id="data"')[0])


def test_a_sample(index, tmp_path, capsys):
    pytest.importorskip('bokeh')
    tool('explore.py', index, '--method', 'pca', '--max-images', 9, '--out', tmp_path / 'x.html')
    assert '9 of 31 images, 1 unreadable, 128 features each, placed by PCA' in (
        capsys.readouterr().out
    )
    data = data_in((tmp_path / 'x.html').read_text())
    assert (len(data['names']), data['k']) == (9, 8)  # eight others


def test_mistakes(index, tmp_path):
    pytest.importorskip('bokeh')
    assert 'no embedding.json' in refusal('explore.py', tmp_path)
    assert 'is a folder: name a file' in refusal('explore.py', index, '--out', tmp_path)
    few = tmp_path / 'few'
    shutil.copytree(index, few)
    features = np.load(few / 'features.npy')
    features[3:] = np.nan
    np.save(few / 'features.npy', features)
    assert 'readable images: a map needs 4' in refusal('explore.py', few)


# --- In a browser ---------------------------------------------------------------------

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking'),
    *('--no-first-run', '--host-resolver-rules=MAP * ~NOTFOUND', '--window-size=1300,800'),
    *('--virtual-time-budget=20000', '--dump-dom'),
)
ROW = 7
# A user: moves to an image, clicks it, opens the lists, looks for a name, chooses a group.
USER = """
<script>
const wait = () => new Promise(done => setTimeout(done, 400));
const find = (root, name) => root.querySelector(name) || [...root.querySelectorAll('*')]
  .map(each => each.shadowRoot && find(each.shadowRoot, name)).find(each => each);
const text = name => [...document.querySelectorAll(name)].map(each => each.textContent);
const out = {};
const use = async () => {
  await explore.ready;
  await wait();
  const images = Bokeh.documents[0].get_model_by_name('images');
  const rings = Bokeh.documents[0].get_model_by_name('rings');
  const canvas = find(document.getElementById('map'), '.bk-events');
  const view = Bokeh.index.roots[0], box = canvas.getBoundingClientRect(), row = ROW;
  const place = {bubbles: true, composed: true, pointerId: 1, pointerType: 'mouse', isPrimary: true,
    clientX: box.left + view.frame.x_scale.compute(images.data.x[row]),
    clientY: box.top + view.frame.y_scale.compute(images.data.y[row])};
  const mouse = type => canvas.dispatchEvent(new PointerEvent(
    type, {...place, button: 0, buttons: type === 'pointerdown' ? 1 : 0}));
  mouse('pointermove');
  await wait();
  out.tip = document.getElementById('tip').innerText;
  mouse('pointerdown');
  mouse('pointerup');
  await wait();
  out.clicked = text('#panel .name');
  out.cosines = text('#panel figcaption');
  out.near = [...document.querySelectorAll('#panel figure')].map(each => Number(each.dataset.row));
  out.rings = rings.data.x.length;
  explore.show('alike');
  out.alike = document.querySelectorAll('#panel .pair').length;
  explore.show('far');
  out.far = document.querySelectorAll('#panel figure').length;
  for (let row = 0; row < 30; row += 1) { explore.select(row); explore.hover([row]); }
  const search = document.getElementById('find');
  search.value = 'ONERROR';
  search.oninput();
  out.found = [...images.data.alpha].filter(alpha => alpha > 0.5).length;
  search.value = '';
  search.oninput();
  document.querySelector('.group').click();
  out.group = [...images.data.alpha].filter(alpha => alpha > 0.5).length;
  out.labels = text('.group b');
  out.colours = new Set(images.data.colour).size;
  await wait();
};
use().catch(error => { out.error = String(error.stack); }).then(() => {
  out.hacked = document.body.dataset.hacked || '';
  const block = document.body.appendChild(document.createElement('pre'));
  block.id = 'out';
  block.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(out))));
});
</script>
"""


@pytest.fixture(scope='module')
def seen(html, tmp_path_factory):
    """What a user of the page sees."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f'there is no browser: one of {", ".join(BROWSERS)}')
    folder = tmp_path_factory.mktemp('browser')
    page = folder / 'page.html'
    page.write_text(html + USER.replace('ROW', str(ROW)))
    command = [browser, *FLAGS, f'--user-data-dir={folder / "profile"}', page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    block = re.search(r'<pre id="out">(.*?)</pre>', done.stdout)
    assert block, done.stderr[-2000:]
    return json.loads(base64.b64decode(block[1]))


def test_a_user_of_the_page(seen, html):
    data = data_in(html)
    assert 'error' not in seen
    assert seen['tip'].startswith(data['names'][ROW])
    assert seen['clicked'] == [data['names'][ROW]]
    rows = np.frombuffer(base64.b64decode(data['neighbours']), '<i4').reshape(30, 5)
    cosines = np.frombuffer(base64.b64decode(data['cosines']), '<f4').reshape(30, 5)
    assert seen['near'] == rows[ROW].tolist() and seen['rings'] == 6
    assert seen['cosines'] == [f'{cosine:.3f}' for cosine in cosines[ROW]]
    assert (seen['alike'], seen['far']) == (len(data['alike']), 30)
    assert seen['found'] == 1
    grouping = data['groupings'][0]
    assert seen['labels'] == grouping['labels']
    assert seen['group'] == grouping['of'].count(0) and seen['colours'] == len(grouping['labels'])


def test_no_name_runs(seen):
    assert seen['hacked'] == ''
