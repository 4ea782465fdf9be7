"""Python blocks of README.md and docs/ run, with stand-ins; flags of shell blocks are parsed."""

import re
import shutil
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from helpers import CONFIGS, DIGITS, ROOT
from helpers.pages import PAGES, Block, blocks_of, calls_of, check_call, run_python
from helpers.tools import tool
from mmengine.registry import DefaultScope
from PIL import Image

import simclr_mm

# What a block takes for granted, by page.
GIVEN = {
    'README.md': (
        'import torch\n'
        'images = torch.zeros(2, 3, 224, 224)\n'
        "paths, labels = ['photographs/c.jpg', 'photographs/d.jpg'], [0, 1]"
    ),
    'docs/evaluation.md': (
        'import numpy as np\n'
        'train_labels = test_labels = np.arange(40) % 2\n'
        'train_features = test_features = np.eye(8, dtype=np.float32)[train_labels]'
    ),
    'docs/inference.md': (
        'import numpy as np, sklearn.preprocessing, torch\n'
        'from sklearn.neighbors import NearestNeighbors'
    ),
}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random weights of the digits config, which the file holds."""
    model = simclr_mm.get_model(str(DIGITS))
    path = tmp_path_factory.mktemp('weights') / 'digits.pth'
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture
def folder(weights, tmp_path, monkeypatch):
    """A current folder with the files that the pages name."""
    shutil.copytree(CONFIGS, tmp_path / 'configs')
    for name in ('OUT.pth', 'work_dirs/my_run/epoch_100.pth', 'work_dirs/six/epoch_6.pth'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(weights, tmp_path / name)
    shutil.copy(DIGITS, tmp_path / 'OUT.py')
    (tmp_path / 'OUT.py').write_text(DIGITS.read_text().replace("'_base_/", f"'{CONFIGS}/_base_/"))
    (tmp_path / 'path/of/the').mkdir(parents=True)
    (tmp_path / 'path/of/the/clone').symlink_to(ROOT)
    (tmp_path / 'photographs').mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype='u1'))
    for name in ('photo', 'bird', 'a', 'b', 'photographs/c', 'photographs/d'):
        picture.save(tmp_path / f'{name}.jpg')
    levels = np.arange(0, 4096, 4, dtype=np.uint16).reshape(32, 32)  # 12 bits in 16
    Image.fromarray(levels).save(tmp_path / 'scan.png')
    (tmp_path / 'DIR').mkdir()
    np.save(tmp_path / 'DIR/features.npy', np.eye(8, dtype=np.float32))
    # As in a new process: a runner that was built before leaves its default scope.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def no_download(monkeypatch):
    """``pretrained=True`` gives random weights, ``'PATH.pth'`` is a file of such."""
    get_model = simclr_mm.get_model

    def stand_in(model, pretrained=False, **kwargs):
        return get_model(model, pretrained=False if pretrained is True else pretrained, **kwargs)

    monkeypatch.setattr(simclr_mm, 'get_model', stand_in)


def run(block, namespace):
    if block.language == 'python':
        run_python(block, namespace)
    elif block.language in ('bash', 'shell'):
        for call in calls_of(block):
            check_call(call)
            if block.note == 'run':
                tool(call.tool, *call.args)


_PAGES = [page for page in PAGES if blocks_of(page)]


@pytest.mark.parametrize('page', _PAGES)
def test_page(page, folder, no_download):
    if 'PATH.pth' in (ROOT / page).read_text():
        torch.save(simclr_mm.get_model('simclr_resnet50').state_dict(), 'PATH.pth')
    namespace = {}
    exec(GIVEN.get(page, ''), namespace)
    for block in blocks_of(page):
        if block.note.startswith('not run: '):
            continue
        try:
            run(block, namespace)
        except BaseException as error:
            raise AssertionError(f'{page}, line {block.line}: {error!r}') from error


@pytest.mark.parametrize(
    'language, text, mistake',
    [
        ('python', "import simclr_mm\nsimclr_mm.get_modell('x')", "no attribute 'get_modell'"),
        ('python', "_base_ = 'no_such_config.py'", 'no_such_config.py'),
        ('python', "val_evaluator = dict(type='simclr_mm.KNNAcuracy')", 'simclr_mm.KNNAcuracy'),
        ('bash', 'python tools/trian.py CONFIG', 'there is no tools/trian.py'),
        ('bash', 'tools/dist_train.sh CONFIG 8 --auto-scale-rl', '2'),  # exit code of argparse
        ('bash', 'python tools/train.py configs/no_such.py', 'there is no configs/no_such.py'),
        ('bash', '--cfg-options train_cfgs.max_epochs=2', "the config has no key 'train_cfgs'"),
        ('bash', 'simclr-mm trian CONFIG', '2'),
        ('bash', 'simclr-mm train simclr_r18_cifar10', 'no config file .simclr_r18_cifar10'),
        ('bash', 'make dmeo', 'dmeo'),
        ('bash', 'pyhton tools/train.py CONFIG', 'who runs pyhton'),
    ],
)
def test_a_mistake_in_a_page_is_found(language, text, mistake, folder):
    with pytest.raises((Exception, SystemExit), match=mistake):
        run(Block('', language, text, 1), {})


def test_what_is_not_run():
    """Each is a decision."""
    notes = Counter(
        (page, block.note.removeprefix('not run: '))
        for page in PAGES
        for block in blocks_of(page)
        if block.note.startswith('not run: ')
    )
    assert notes == {
        ('docs/checkpoints.md', 'needs a hub folder'): 1,
        ('docs/evaluation.md', 'takes a minute'): 1,
        ('docs/inference.md', 'needs a GPU'): 1,
        ('docs/inference.md', 'needs faiss'): 1,
    }


# --- Links ----------------------------------------------------------------------------

LINKED = [*PAGES, 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'configs/README.md']


def without_blocks(page):
    return re.sub(r'^```.*?^```', '', (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors_of(path):
    """What GitHub calls the headings of a page."""
    headings = re.findall(r'^#+ (.+)$', without_blocks(path), re.MULTILINE)
    plain = [re.sub(r'[^\w\- ]', '', heading.lower()) for heading in headings]
    return {heading.replace(' ', '-') for heading in plain}


def broken_links(page, text):
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if '://' in target:
            continue
        name, _, anchor = target.partition('#')
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.exists():
            yield f'{target}: there is no {name}'
        elif anchor and anchor not in anchors_of(path):
            yield f'{target}: {path.name} has no such heading'


def missing_files(text):
    """Files of this project that a page names in backquotes and that do not exist."""
    for name in re.findall(r'`([\w./-]+\.(?:py|sh|yml|toml|md))`', text):
        first, _, rest = name.partition('/')
        inside = [ROOT, ROOT / 'simclr_mm', ROOT / 'configs']
        if rest and any((folder / first).is_dir() for folder in inside):
            if not any((folder / name).exists() for folder in inside):
                yield name


@pytest.mark.parametrize('page', LINKED)
def test_what_a_page_names_exists(page):
    text = without_blocks(page)
    assert not [*broken_links(page, text), *missing_files(text)]


def test_a_broken_link_is_found():
    text = '[a](shards.md#measured) [b](shards.md#no-such) [c](no_page.md) `engine/no_file.py`'
    assert len([*broken_links('docs/README.md', text), *missing_files(text)]) == 3


def test_the_drawing_of_the_floors_names_every_file():
    drawing = re.search(
        r'^```\n(tools .*?)^```', (ROOT / 'docs/design.md').read_text(), re.M | re.S
    )
    drawn = set(re.findall(r'\w+', drawing[1]))
    files = [*ROOT.glob('simclr_mm*/**/*.py'), *(ROOT / 'tools').rglob('*.[ps][yh]')]
    files = {path.relative_to(ROOT) for path in files if '.mim' not in path.parts}
    rooms = ('__init__', 'command')  # the name of their room stands for them
    names = {path.parent.name if path.stem in rooms else path.stem for path in files}
    assert names - drawn == {'simclr_mm'}
    assert {word for word in drawn if '_' in word} <= names
