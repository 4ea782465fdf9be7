"""tools/pack.py: what it writes, killed anywhere, and what it refuses."""

import errno
import json
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock
from helpers.tools import tool as run_tool
from PIL import Image, ImageOps

from simclr_mm.commands.pack.folder import encode, pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import HuggingFaceImages, LMDBImages, TarShards, shard_dataset
from simclr_mm.transforms import UnreadableImage

pytest.importorskip('webdataset')
pytest.importorskip('datasets')
pytest.importorskip('lmdb')
TOOL = Path(__file__).parents[3] / 'tools' / 'pack.py'
TYPES = dict(tar=TarShards, parquet=HuggingFaceImages, lmdb=LMDBImages)


def tool(*args):
    run_tool('pack.py', *args, '--processes', 1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr('datasets.config.HF_DATASETS_CACHE', tmp_path / 'cache')
    monkeypatch.setattr(os, 'fsync', lambda file: None)  # no machine dies here


@pytest.fixture
def folder(tmp_path):
    """20 images of two classes, two of which are broken."""
    rng = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / 'in' / 'ab'[i % 2] / f'{i:02d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (10 + i, 12, 3), np.uint8)
        content = cv2.imencode('.png', image)[1].tobytes()
        path.write_bytes(content[:50] if i in (4, 7) else content)
    return tmp_path / 'in'


def bytes_of(out):
    return {
        path.relative_to(out): path.read_bytes()
        for path in out.rglob('*')
        if path.is_file() and path.name != 'lock.mdb'
    }


class Killed(BaseException):
    pass


@pytest.mark.parametrize('kind', ['tar', 'parquet', 'lmdb'])
def test_killed_anywhere_it_goes_on_to_the_same_files(folder, tmp_path, monkeypatch, kind):
    settings = PackSettings(kind, short_side=8, shard_images=10)
    whole = tmp_path / 'whole'
    index = pack_folder(folder, whole, settings)
    assert (index['images'], index['unreadable']) == (18, 2)
    for calls in range(1, 40):
        replace, count = os.replace, []

        def dying(*args):
            count.append(args)
            if len(count) == calls:
                raise Killed
            replace(*args)

        out = tmp_path / f'out{calls}'
        with monkeypatch.context() as patch:
            patch.setattr(os, 'replace', dying)
            try:
                pack_folder(folder, out, settings)
                break
            except Killed:
                pass
        assert not (out / 'index.json').is_file()
        if calls > 1:
            (out / '.shard-00001.tar.partial').write_bytes(b'left by a kill')
        pack_folder(folder, out, settings)
        got = bytes_of(out)
        got.pop(Path('.shard-00001.tar.partial'), None)
        if kind == 'lmdb':  # the tree's pages depend on the order of transactions
            got.pop(Path('data.mdb'))
            data, expected = (LMDBImages(str(path)) for path in (out, whole))
            assert [data.read(i) for i in range(18)] == [expected.read(i) for i in range(18)]
            got_index = json.loads(got.pop(Path('index.json')))
            assert got_index == json.loads((whole / 'index.json').read_text())
        assert got.items() <= bytes_of(whole).items()
        shutil.rmtree(out)
    assert calls > 5  # plan, shards and their states, lists, index


def test_a_network_disk_keeps_the_lock_that_is_open(folder, tmp_path, monkeypatch):
    """NFS renames an open file that is deleted, so its folder is not empty."""

    def busy(path, *args, **kwargs):
        raise OSError(errno.ENOTEMPTY, 'Directory not empty', path)

    monkeypatch.setattr(os, 'rmdir', busy)
    for restart in (False, True, False):
        index = pack_folder(folder, tmp_path / 'out', PackSettings('tar'), restart=restart)
        assert index['images'] == 18


@pytest.mark.parametrize('mark', ['[256]', '*'])
def test_folders_whose_names_are_patterns(folder, tmp_path, mark):
    pack_folder(folder, tmp_path / f'packed {mark}', PackSettings('parquet'))
    pack_folder(folder / 'a', tmp_path / 'packed 2', PackSettings('parquet'), labelled=False)
    assert len(HuggingFaceImages(str(tmp_path / f'packed {mark}'))) == 18


def test_several_processes_write_the_same(folder, tmp_path):
    for processes in (1, 3):
        pack_folder(
            folder,
            tmp_path / str(processes),
            PackSettings('tar', shard_images=6),
            processes=processes,
        )
    assert bytes_of(tmp_path / '1') == bytes_of(tmp_path / '3')


def test_unreadable_images_are_listed_and_counted(folder, tmp_path, capsys):
    tool(folder, tmp_path / 'out', '--shard-size', 6)
    said = capsys.readouterr().out
    assert '18 images, 2 classes, 4 files' in ' '.join(said.split())
    assert '2 images cannot be read and are left out: ' in said
    lines = (tmp_path / 'out' / 'unreadable.jsonl').read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry['path'] for entry in entries] == ['a/04.png', 'b/07.png']
    assert all('a damaged image' in entry['reason'] for entry in entries)
    data = TarShards(str(tmp_path / 'out'))
    assert len(data) == 18 and data.get_gt_labels().sum() == 9


def test_a_finished_pack_is_left_alone_and_another_refused(folder, tmp_path):
    out = tmp_path / 'out'
    tool(folder, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    tool(folder, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(SystemExit, match='other settings: short_side was None, is 9;'):
        tool(folder, out, '--short-side', 9)
    (folder / 'a' / '00.png').write_bytes(b'changed')
    with pytest.raises(SystemExit, match='holds a pack of other files: name a new'):
        tool(folder, out)
    tool(folder, out, '--restart')
    assert json.loads((out / 'index.json').read_text())['unreadable'] == 3
    with pytest.raises(SystemExit, match='is not empty and holds no pack'):
        tool(folder, folder, '--restart')
    assert (folder / 'a' / '02.png').is_file()


def test_restart_removes_a_pack_and_nothing_else(folder, tmp_path):
    out = tmp_path / 'out'
    for kind in TYPES:
        tool(folder, out, '--format', kind, '--restart')
    (out / '.shard-00000.tar.partial').write_bytes(b'left by a kill')
    (out / 'photos').mkdir()
    before = bytes_of(out)
    with pytest.raises(SystemExit, match='out holds photos beside the pack: move'):
        tool(folder, out, '--restart')
    assert bytes_of(out) == before
    (out / 'photos').rmdir()
    tool(folder, out, '--restart', '--shard-size', 9)
    assert sorted(path.name for path in out.glob('.*')) == []
    assert len(list(out.glob('shard-*'))) == 3 and not (out / 'data.mdb').exists()


@pytest.mark.parametrize('complete', [True, False])
def test_restart_waits_for_no_other_and_removes_nothing_of_it(folder, tmp_path, complete):
    out = tmp_path / 'pack'
    tool(folder, out)
    if not complete:
        (out / 'index.json').unlink()
    (out / '.packing').mkdir()
    with FileLock(out / '.packing' / 'lock'):
        before = bytes_of(out)
        with pytest.raises(SystemExit, match='another process is working in'):
            tool(folder, out, '--restart')
        assert bytes_of(out) == before
    tool(folder, out, '--restart')
    assert (out / 'index.json').is_file() and not (out / '.packing').exists()


def test_half_a_pack_is_not_trained_on(folder, tmp_path, monkeypatch):
    out = tmp_path / 'out'

    def stop(self, *args):
        assert (out / 'shard-00000.tar').is_file()
        with pytest.raises(SystemExit, match='another process is working in .*out: wait'):
            tool(folder, out)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr('simclr_mm.commands.pack.writers.TarWriter.finish', stop)
        with pytest.raises(Killed):
            tool(folder, out)
    for read in (shard_dataset, TarShards):
        with pytest.raises(ValueError, match='out is an unfinished pack: call simclr-mm pack'):
            read(str(out))
    tool(folder, out)
    (out / '.packing').mkdir()  # killed while it was removed
    assert len(TarShards(str(out))) == 18
    written = (out / 'shard-00000.tar').stat().st_ino
    tool(folder, out)
    assert not (out / '.packing').exists()
    assert (out / 'shard-00000.tar').stat().st_ino == written


@pytest.mark.parametrize('kind', ['tar', 'parquet', 'lmdb'])
def test_flat_folders_and_classes_of_a_file(folder, tmp_path, kind):
    names = tmp_path / 'classes.txt'
    names.write_text('c\nb\na\n')
    tool(folder, tmp_path / 'ordered', '--format', kind, '--classes', names)
    data = TYPES[kind](str(tmp_path / 'ordered'))
    assert data.metainfo['classes'] == ('c', 'b', 'a')
    assert set(data.get_gt_labels().tolist()) == {1, 2}
    tool(folder, tmp_path / 'bare', '--format', kind, '--no-labels')
    with pytest.raises(ValueError, match='with_label=False'):
        TYPES[kind](str(tmp_path / 'bare'))
    tool(folder / 'a', tmp_path / 'flat', '--format', kind)
    assert len(TYPES[kind](str(tmp_path / 'flat'), with_label=False)) == 9
    names.write_text('a\n')
    with pytest.raises(SystemExit, match='does not name b, folders of'):
        tool(folder, tmp_path / 'x', '--classes', names)
    with pytest.raises(SystemExit, match='images outside of class folders'):
        tool(folder / 'a', tmp_path / 'x', '--classes', names)


def test_large_images_are_reduced_and_small_ones_kept(tmp_path):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(cv2.resize(noise, (400, 300)))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / 'large.jpeg', quality=95, exif=exif)
    content, extension = encode(str(tmp_path / 'large.jpeg'), 100, 90)
    got = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert got.shape == (133, 100, 3) and extension == 'jpg'
    upright = ImageOps.exif_transpose(Image.open(tmp_path / 'large.jpeg'))
    expected = np.asarray(upright.resize((100, 133), Image.Resampling.BOX))
    assert np.abs(got[..., ::-1].astype(int) - expected).mean() < 2
    kept = (tmp_path / 'large.jpeg').read_bytes(), 'jpg'
    assert encode(str(tmp_path / 'large.jpeg'), 300, 90) == kept
    assert encode(str(tmp_path / 'large.jpeg'), None, 90) == kept
    image.save(tmp_path / 'named.jpg', format='PNG')
    assert encode(str(tmp_path / 'named.jpg'), None, 90)[1] == 'png'
    (tmp_path / 'no.jpg').write_bytes(b'no image')
    with pytest.raises(UnreadableImage, match='no.jpg: not an image'):
        encode(str(tmp_path / 'no.jpg'), None, 90)


def test_mistakes_are_named(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    for flag, value, message in (
        ('--short-side', 0, '0 is less than 1'),
        ('--quality', 101, '101 is more than 100'),
        ('--shard-size', 0, '0 is less than 1'),
    ):
        with pytest.raises(SystemExit):
            tool(folder, out, flag, value)
        assert f'pack.py: error: argument {flag}: {message}' in capsys.readouterr().err
    for flags, message in (
        (('--quality', 50), '--quality 50 is for images reduced by --short-side'),
        (('--no-labels', '--classes', 'names.txt'), '--no-labels and --classes exclude'),
    ):
        with pytest.raises(SystemExit, match=message):
            tool(folder, out, *flags)
    with pytest.raises(SystemExit, match='there is no folder'):
        tool(tmp_path / 'nowhere', out)
    for path in folder.rglob('*.png'):
        path.write_bytes(b'broken')
    with pytest.raises(SystemExit, match='no image of .* can be read; the first: .*00'):
        tool(folder, out)
    monkeypatch.setitem(sys.modules, 'webdataset', None)
    with pytest.raises(SystemExit, match=r"'simclr_mm\[webdataset\]'"):
        tool(folder, tmp_path / 'new')


def test_names_that_are_no_ascii(folder, tmp_path):
    (folder / 'a' / '02.png').rename(folder / 'a' / 'Käse 100%.png')
    pack_folder(folder, tmp_path / 'out', PackSettings('lmdb'))
    data = LMDBImages(str(tmp_path / 'out'))
    [row] = [row for row in range(18) if 'K%C3%A4se 100%25.png' in data.name(row)]
    assert data.read(row) == (folder / 'a' / 'Käse 100%.png').read_bytes()
    latin = (folder / 'a' / 'Käse 100%.png').rename(
        os.fsdecode(os.fsencode(folder / 'a') + b'/K\xe4se.png')
    )
    for kind, cls in TYPES.items():
        pack_folder(folder, tmp_path / kind, PackSettings(kind))
        data = cls(str(tmp_path / kind))
        assert latin.read_bytes() in [data.read(row) for row in range(18)]
    (folder / 'a' / ('ä' * 100 + '.png')).write_bytes(data.read(row))
    with pytest.raises(ValueError, match='names of 511 bytes at most'):
        pack_folder(folder, tmp_path / 'long', PackSettings('lmdb'))


def test_broken_links_are_left_out_and_named(folder, tmp_path, capsys):
    (folder / 'a' / '01.png').symlink_to(tmp_path / 'nowhere.png')
    (folder / 'c').symlink_to(tmp_path / 'no folder')
    tool(folder, tmp_path / 'out')
    assert '3 images cannot be read and are left out: ' in capsys.readouterr().out
    lines = (tmp_path / 'out' / 'unreadable.jsonl').read_text().splitlines()
    entries = {entry['path']: entry['reason'] for entry in map(json.loads, lines)}
    assert sorted(entries) == ['a/01.png', 'a/04.png', 'b/07.png']
    assert 'broken link' in entries['a/01.png']
    index = json.loads((tmp_path / 'out' / 'index.json').read_text())
    assert (index['images'], index['unreadable'], index['classes']) == (18, 3, ['a', 'b'])


@pytest.mark.parametrize('kind', ['tar', 'parquet', 'lmdb'])
def test_every_name_that_the_file_system_holds(tmp_path, kind):
    content = cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    names = [b'$\\alpha', b'K\xe4se', b'two\nlines', b' 100% {a,b}', 'Käse'.encode()]
    for number, name in enumerate(sorted(names)):
        path = os.fsdecode(os.path.join(os.fsencode(tmp_path / 'in'), name, name + b'.png'))
        os.makedirs(os.path.dirname(path))
        Path(path).write_bytes(content + bytes([number]))
    tool(tmp_path / 'in', tmp_path / 'out', '--format', kind)
    data = TYPES[kind](str(tmp_path / 'out'))
    assert [data.read(row)[-1] for row in range(5)] == [0, 1, 2, 3, 4]
    assert data.get_gt_labels().tolist() == [0, 1, 2, 3, 4]
    assert data.metainfo['classes'] == tuple(sorted(map(os.fsdecode, names)))
    assert all(data.name(row).encode() for row in range(5))  # the log can show it


def test_a_class_is_named_once(folder, tmp_path):
    (tmp_path / 'names').write_text('a\nb\na\n')
    with pytest.raises(SystemExit, match='names a class twice'):
        tool(folder, tmp_path / 'out', '--classes', tmp_path / 'names')


def _slowly(task, settings):
    _slowly.begun.put(os.getpid())
    time.sleep(60)


def _at_work(folder, out, begun):
    _slowly.begun = begun
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('simclr_mm.commands.pack.folder._encode_row', _slowly)
        pack_folder(str(folder), out, PackSettings('tar'), processes=2)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(folder, tmp_path):
    context = multiprocessing.get_context('fork')
    begun = context.Queue()
    parent = context.Process(target=_at_work, args=(folder, tmp_path / 'out', begun))
    parent.start()
    workers = {begun.get(timeout=30), begun.get(timeout=30)}
    parent.kill()
    parent.join(30)
    deadline = time.monotonic() + 20
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_runs, workers))


def _runs(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False
