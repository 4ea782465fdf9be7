"""Images on tar shards in WebDataset's layout."""

import contextlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.files.installed import optional_package
from simclr_mm.files.storage import is_url
from simclr_mm.registry import DATASETS
from simclr_mm.transforms.to_rgb import unreadable

from .pack_index import INDEX, TAR_INDEX, parse_index, read_index, require_whole
from .shard_cache import ShardCache
from .stored_images import StoredImages
from .tar_index import lie_within, read_rows, remembered_index

_OPEN_FILES = 32  # of a process: more than shards_at_once needs


@DATASETS.register_module()
class TarShards(StoredImages):
    """Images in tar files of ``key.jpg``, ``key.cls`` and others, with random access.

    A pack of ``simclr-mm pack`` keeps the order of its folder, so training on it equals
    training on the folder. The images of other tar files keep their order in the files.
    Their headers are read once on each machine.

    A shard by URL is fetched whole when its first image is needed, once for all processes
    of a machine, and kept in a cache. The sampler's ``shards_at_once`` gives an order that
    reads few shards at a time.

    Args:
        data_root: Folder of the shards, or its URL: http, https, or any scheme of fsspec.
        shards: Names of the files to read, whatever an ``index.json`` lists: a glob, or braces
            as in ``train-{000000..000146}.tar``, which need webdataset. With a URL use braces;
            then every shard is fetched before the first image, to find the images in it.
            None: those of the ``index.json``, or ``*.tar`` without one.
        cache_gib: Room in GiB for fetched shards, above 0. 64 hold some 300 shards of 200 MB, which
            is ImageNet re-encoded at 256 px.
        **kwargs: As for :class:`StoredImages`.

    Raises:
        MissingFileError: There is no shard.
        UserError: A shard is damaged, or differs from its index.

    Differs: webdataset reads streams. Their order depends on buffers and workers, and
        they cannot resume at a sample.
    """

    def __init__(
        self, data_root: str | Path, shards: str | None = None, cache_gib: float = 64, **kwargs
    ) -> None:
        if not cache_gib > 0:
            raise UserError(f'cache_gib = {cache_gib} of TarShards: give a number above 0.')
        self.shards = shards
        self.cache = ShardCache(cache_gib)
        self.is_remote = is_url(str(data_root))
        super().__init__(data_root=data_root, **kwargs)

    def find(self) -> tuple[np.ndarray | None, list[str] | None, int]:
        self.files = _OpenFiles()
        self.sizes: list[int | None] = []  # bytes of each shard, if known
        self.index, classes = self._read_pack() or self._read_foreign()
        return self.index['label'].copy(), classes, len(self.index)

    def name(self, row: int) -> str:
        member = self.index['name'][row].decode(errors='replace')
        return f'{self.paths[self.index["shard"][row]]}/{member}'

    def storage(self) -> list[str]:
        if self.is_remote:
            return [self.cache.version]  # of foreign shards ''; their names are those of images
        return list(map(os.path.abspath, self.paths))

    def read(self, row: int) -> bytes:
        shard, offset, size = (int(self.index[key][row]) for key in ('shard', 'offset', 'size'))
        file = self.files.pop(shard, None) or self._open_shard(shard)
        self.files[shard] = file
        if len(self.files) > _OPEN_FILES:
            self.files.popitem(last=False)[1].close()
        try:
            content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise unreadable(self.name(row), f'cannot be read: {error}') from error
        if len(content) != size:
            raise unreadable(self.name(row), 'the shard ends before the image does.')
        return content

    def shards_of_images(self) -> np.ndarray:
        """(N,) the shard of each image, for the sampler."""
        if len(self) == len(self.index):
            return self.index['shard'].copy()  # contiguous, as PyTorch needs it
        return self.index['shard'][[self.get_data_info(i)['row'] for i in range(len(self))]]

    def prepare_data(self, idx: int) -> dict | None:
        shard = getattr(idx, 'ahead', None)
        if shard is not None:
            threading.Thread(target=self._fetch, args=(shard,), daemon=True).start()
        return super().prepare_data(idx)

    def _fetch(self, shard: int) -> None:
        """Fetch a shard that will be needed soon."""
        with contextlib.suppress(OSError, UserError):  # the later read raises it
            self.cache.fetch(self.paths[shard], self.sizes[shard])

    def _open_shard(self, shard: int) -> BinaryIO:
        if self.is_remote:
            return self.cache.open(self.paths[shard], self.sizes[shard])
        return open(self.paths[shard], 'rb')

    def _read_pack(self) -> tuple[np.ndarray, list[str] | None] | None:
        """Rows and classes of a pack by simclr-mm pack. None if there is none."""
        root = self.data_root.rstrip('/')
        if self.is_remote and self.shards is not None:
            return None
        pack = self._fetch_index(root) if self.is_remote else read_index(Path(root))
        if pack is None or self.shards is not None:
            return None
        if pack['format'] != 'tar':
            raise UserError(
                f'{self.data_root} is a pack of format {pack["format"]}, TarShards reads tar.'
            )
        if self.is_remote:
            rows = read_rows(self.cache.fetch(f'{root}/{TAR_INDEX}'))
        else:
            require_whole(Path(root), pack)
            rows = read_rows(Path(root, TAR_INDEX))
        sizes = [shard['bytes'] for shard in pack['shards']]
        if len(rows) != pack['images'] or not lie_within(rows, sizes):
            raise UserError(
                f'{root}/{TAR_INDEX} does not belong to the {INDEX} beside it: copy both '
                'again, or pack again with --restart.'
            )
        self.sizes = list(sizes)
        self.paths = [f'{root}/{shard["name"]}' for shard in pack['shards']]
        return rows, pack['classes']

    def _fetch_index(self, url: str) -> dict[str, Any]:
        """Fetch the current index. Its hash becomes the version of the cached shards."""
        content = self.cache.fetch(f'{url}/{INDEX}', anew=True).read_bytes()
        self.cache.version = bytes_hash([content])
        return parse_index(content, f'{url}/{INDEX}')

    def _read_foreign(self) -> tuple[np.ndarray, None]:
        root, shards = self.data_root.rstrip('/'), self.shards or '*.tar'
        if '{' in shards:
            use = f'shards={shards!r}'
            lists = optional_package('webdataset.shardlists', 'webdataset', use)
            self.paths = [f'{root}/{name}' for name in lists.expand_urls(shards)]
        elif self.is_remote:
            if set(shards) & set('*?['):
                raise UserError(
                    f'shards = {shards!r}: a URL has no list of files, so write braces as in '
                    'train-{000000..000146}.tar.'
                )
            self.paths = [f'{root}/{shards}']
        else:
            self.paths = sorted(map(str, Path(root).glob(shards)))
        if not self.paths:
            raise MissingFileError(
                f'{Path(root).absolute()} holds no {shards}: '
                'give the folder of your shards as data_root.'
            )
        self.sizes = [None] * len(self.paths)
        if self.is_remote:
            fetched = (self.cache.fetch(path) for path in self.paths)
            return remembered_index(self.paths, fetched), None
        states = []
        for path in self.paths:
            stat = os.stat(path)
            states.append(f'{os.path.abspath(path)} {stat.st_size} {stat.st_mtime_ns}')
        return remembered_index(states, map(Path, self.paths)), None


class _OpenFiles(OrderedDict[int, BinaryIO]):
    """Open files by shard, the latest last. A pickled copy is empty.

    Reads give their offset, so forked processes may share the files.
    """

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _OpenFiles, ()
