"""Decoded images are kept beside the data and made again when these change."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from simclr_mm.datasets.array_cache import Arrays, cached_arrays, files_key
from simclr_mm.files.walk import CACHE_FOLDER


class Maker:
    """Counts how often the images are decoded."""

    def __init__(self, value=7):
        self.calls, self.value = 0, value

    def __call__(self):
        self.calls += 1
        images = np.full((3, 4, 5, 3), self.value, np.uint8)
        images[1, 2, 3] = 1, 2, 3
        return Arrays(images[..., ::-1], np.array([1, -1, 0]), ['a', 'b'])


def kept(root):
    return sorted(path.name for path in (root / CACHE_FOLDER).iterdir())


def test_decoded_once_and_mapped(tmp_path):
    make = Maker()
    for _ in range(3):
        arrays = cached_arrays(tmp_path, 'set-train', lambda: 'a' * 16, make)
        assert arrays.images[1, 2, 3].tolist() == [3, 2, 1]
        assert arrays.images.shape == (3, 4, 5, 3) and not arrays.images.flags.writeable
        assert arrays.labels.tolist() == [1, -1, 0] and arrays.classes == ['a', 'b']
    assert make.calls == 1
    base = arrays.images
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert type(base).__name__ == 'mmap'


def test_other_content_replaces_it_and_other_splits_stay(tmp_path):
    cached_arrays(tmp_path, 'set-train', lambda: 'a' * 16, Maker(1))
    cached_arrays(tmp_path, 'set-train-8px', lambda: 'a' * 16, Maker(2))
    new = cached_arrays(tmp_path, 'set-train', lambda: 'b' * 16, Maker(3))
    assert new.images[0, 0, 0, 0] == 3
    stems = {name.split('.')[0] for name in kept(tmp_path) if '.np' in name}
    assert stems == {'set-train-' + 'b' * 16, 'set-train-8px-' + 'a' * 16}


def test_what_is_fetched_while_made_has_its_own_key(tmp_path):
    keys = iter(['0' * 16, '0' * 16, 'c' * 16])
    cached_arrays(tmp_path, 'set', lambda: next(keys), Maker())
    assert f'set-{"c" * 16}.npy' in kept(tmp_path)


@pytest.mark.parametrize('ending', ['npy', 'npz'])
def test_damaged_files_are_made_again(tmp_path, ending):
    cached_arrays(tmp_path, 'set', lambda: 'a' * 16, Maker())
    (file,) = (tmp_path / CACHE_FOLDER).glob(f'*.{ending}')
    for content in (b'', b'rubbish', file.read_bytes()[:-20]):
        file.write_bytes(content)
        make = Maker()
        arrays = cached_arrays(tmp_path, 'set', lambda: 'a' * 16, make)
        assert make.calls == 1 and arrays.images[1, 2, 3].tolist() == [3, 2, 1]


def test_without_a_place_to_write_they_stay_in_memory(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'simclr_mm.datasets.array_cache.print_log', lambda line, **kwargs: lines.append(line)
    )
    (tmp_path / CACHE_FOLDER).write_text('not a folder')
    arrays = cached_arrays(tmp_path, 'set', lambda: 'a' * 16, Maker())
    assert arrays.images[1, 2, 3].tolist() == [3, 2, 1]
    assert len(lines) == 1 and 'cannot be written' in lines[0]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):

    def full(file, array):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'save', full)
    arrays = cached_arrays(tmp_path, 'set', lambda: 'a' * 16, Maker())
    assert arrays.images[1, 2, 3].tolist() == [3, 2, 1]
    assert not [name for name in kept(tmp_path) if 'npy' in name]


def test_one_of_many_makes_them(tmp_path):
    make = Maker()
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: cached_arrays(tmp_path, 'set', lambda: 'a' * 16, make), range(4))
        )
    assert make.calls == 1
    assert all(each.images[1, 2, 3].tolist() == [3, 2, 1] for each in results)


def test_the_key_is_of_names_sizes_and_times(tmp_path, monkeypatch):
    folder = tmp_path / 'data'
    folder.mkdir()
    files = [folder / 'a.png', folder / 'b.png']
    for file in files:
        file.write_bytes(b'1234')
        os.utime(file, (5, 5))

    def key(root=folder):
        return files_key(root, [str(root / file.name) for file in files])

    keys = [key()]
    assert key(Path(f'{folder}/')) == files_key(f'{folder}/', map(str, files)) == key()
    os.utime(files[0], (6, 6))
    keys.append(key())
    files[0].write_bytes(b'12345')
    os.utime(files[0], (6, 6))
    keys.append(key())
    files[1] = files[1].rename(folder / 'c.png')
    keys.append(key())
    assert len(set(keys)) == 4
    moved = folder.rename(tmp_path / 'moved')
    assert key(moved) == keys[-1]
    # Another version of the package may read the files otherwise.
    monkeypatch.setattr('simclr_mm.datasets.array_cache.READING_RULE', 1)
    assert key(moved) not in keys
