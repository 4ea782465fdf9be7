"""A sampler that can stop and resume at any position."""

from collections.abc import Iterator, Sized

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor
from torch.utils.data import Sampler

from simclr_mm.errors import UserError
from simclr_mm.registry import DATA_SAMPLERS


class SampleIndex(int):
    """The index of an image, together with the seed and the epoch of the request.

    MMEngine's datasets pass the index to their transforms as ``results['sample_idx']``. So a
    view is a function of (seed, epoch, image, view) in every worker process.

    Args:
        index: Position in the dataset, >= 0.
        seed: The run's seed.
        epoch: Epoch of the request, from 0.
        ahead: A shard that will be needed soon, for datasets that fetch shards.
        place: Position among all images of the sampler. It stays the same when a dataset
            of datasets asks one of its members. None: ``index``.
    """

    seed: int
    epoch: int
    ahead: int | None
    place: int

    def __new__(
        cls,
        index: int,
        seed: int = 0,
        epoch: int = 0,
        ahead: int | None = None,
        place: int | None = None,
    ) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        self.epoch = epoch
        self.ahead = ahead
        self.place = int(index) if place is None else place
        return self

    def __reduce__(self):
        return SampleIndex, (int(self), self.seed, self.epoch, self.ahead, self.place)

    def at(self, index: int) -> 'SampleIndex':
        """The same request for another image."""
        return SampleIndex(index, self.seed, self.epoch, place=self.place)

    def __sub__(self, offset: int) -> 'SampleIndex':
        # ConcatDataset turns a global index into a member's by subtraction,
        return self.at(int(self) - int(offset))

    def __mod__(self, length: int) -> 'SampleIndex':
        # and RepeatDataset by the remainder.
        return self.at(int(self) % int(length))


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """One permutation an epoch, dealt to the ranks in turn, from any start.

    With ``drop_last=True`` in the dataloader, the batches of all ranks together are one
    permutation of the dataset, cut to whole global batches. The images left out change with
    the permutation.

    With ``shards_at_once`` = k the permutation reads shards nearly one after another. The
    shards stand in a random order on a circle. Each image gets a random point in the k
    steps after its shard's position, and one round is the epoch. At any time images of k
    shards are mixed. Each rank takes one arc of the circle, so it reads its own share of the
    shards.

    Args:
        dataset: Its length is used and, with ``shards_at_once``, its shards.
        shuffle: False gives the dataset's own order in every epoch.
        seed: Seed of the permutations and, through :class:`SampleIndex`, of the views.
            None: a random seed, the same on every rank.
        shards_at_once: k >= 1, for shards from the web or on disks that are slow at random
            access. 16 mixes well if images are spread over the shards at random, as
            tools/pack.py does. None: any image at any time.

    Raises:
        UserError: The dataset has fewer images than there are ranks, has no shards for
            ``shards_at_once``, or would fetch a shard for every image.

    Differs: MMEngine's DefaultSampler repeats images to make ranks even, cannot start
        inside an epoch, and sends neither seed nor epoch to the transforms.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        shards_at_once: int | None = None,
    ) -> None:
        if seed is not None and not 0 <= seed < 2**63:
            raise UserError(f'train_dataloader.sampler.seed = {seed}: give a whole number from 0.')
        self.rank, self.world_size = get_dist_info()
        self.num_images = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.start = 0
        if len(self) == 0:
            raise UserError(
                f'train_dataloader.dataset has {self.num_images} images for '
                f'{self.world_size} processes: every process needs at least one.'
            )
        self.shards_at_once = shards_at_once
        self.is_remote = getattr(dataset, 'is_remote', False)
        self.shards: Tensor | None = None
        if shards_at_once is not None:
            self.shards = self._shards_of(dataset, shards_at_once)
        if self.is_remote and shuffle and self.shards is None:
            raise UserError(
                'train_dataloader.dataset fetches shards, one for nearly every image '
                'in this order: write train_dataloader.sampler.shards_at_once=16.'
            )

    def _shards_of(self, dataset: Sized, shards_at_once: int) -> Tensor:
        """(N,) the shard of each image, numbered from 0 without gaps."""
        key = 'train_dataloader.sampler.shards_at_once'
        if shards_at_once < 1 or not self.shuffle:
            raise UserError(f'{key} = {shards_at_once}: give a number from 1, with shuffle=True.')
        shards_of_images = getattr(dataset, 'shards_of_images', None)
        if shards_of_images is None:
            raise UserError(
                f'{key} is for simclr_mm.TarShards; this dataset has no shards: leave it out.'
            )
        self.shard_ids, shards = torch.as_tensor(shards_of_images()).unique(return_inverse=True)
        return shards

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the permutation, and the position where the next iterator starts.

        Args:
            epoch: Epoch, from 0.
            start: Images of this rank to skip, in [0, len(self)].
        """
        self.epoch = epoch
        self.start = start

    def __iter__(self) -> Iterator[SampleIndex]:
        order = self._order()
        if self.shards is None:
            mine = order[self.rank :: self.world_size][: len(self)]
        else:
            mine = order[self.rank * len(self) :][: len(self)]
        mine = mine[self.start :]
        ahead = self._ahead(mine) if self.is_remote else {}
        for place, index in enumerate(mine.tolist()):
            yield SampleIndex(index, self.seed, self.epoch, ahead.get(place))

    def _order(self) -> Tensor:
        """(N,) the epoch's permutation, a function of seed, epoch and shards."""
        if not self.shuffle:
            return torch.arange(self.num_images)
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        if self.shards is None or self.shards_at_once is None:
            return torch.randperm(self.num_images, generator=generator)
        count = len(self.shard_ids)
        places = torch.randperm(count, generator=generator)[self.shards]  # (N,)
        delay = torch.rand(self.num_images, generator=generator, dtype=torch.double)
        points = (places + delay * min(self.shards_at_once, count)) % count
        return points.argsort(stable=True)

    def _ahead(self, mine: Tensor) -> dict[int, int]:
        """The shard to fetch at each of some images, two shards before its own images."""
        if self.shards is None:
            return {}
        shards, first = np.unique(self.shards[mine].numpy(), return_index=True)
        order = np.argsort(first)
        coming = self.shard_ids[shards[order]].tolist()
        return dict(zip(first[order].tolist(), coming[2:]))

    def __len__(self) -> int:
        """Images of this rank in a whole epoch."""
        return self.num_images // self.world_size
