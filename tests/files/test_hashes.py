"""Hashes of what files hold, and of what a folder says about them."""

import hashlib
import os

from simclr_mm.files.hashes import content_hash, listing_hash


def test_content(tmp_path):
    data = bytes(range(256)) * 10_000
    (tmp_path / 'a').write_bytes(data)
    assert content_hash(tmp_path / 'a') == hashlib.sha256(data).hexdigest()


def test_a_listing_changes_with_name_size_and_time_only(tmp_path):
    for folder in ('one', 'two'):
        (tmp_path / folder).mkdir()
        for name in ('a', 'b\udcff'):
            (tmp_path / folder / name).write_bytes(b'123')
            os.utime(tmp_path / folder / name, ns=(5, 5))
    names = ['a', 'b\udcff', 'gone']
    expected = hashlib.sha256(b'a\n3 5\nb\xff\n3 5\ngone\n').hexdigest()
    assert listing_hash(tmp_path / 'one', names) == listing_hash(tmp_path / 'two', names)
    assert listing_hash(tmp_path / 'one', names) == expected
    assert listing_hash(tmp_path / 'one', names[1:]) != expected
    os.utime(tmp_path / 'one' / 'a', ns=(6, 6))
    assert listing_hash(tmp_path / 'one', names) != expected
