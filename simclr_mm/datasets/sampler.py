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

    With ``groups`` = 'apart' the k images of a group come at about even distances of N / k
    images, in a random order from a random place, so that few share a batch. With 'together' they
    follow each other. Images in no group lie between them.

    Args:
        dataset: Its length is used and, with ``shards_at_once``, its shards.
        shuffle: False gives the dataset's own order in every epoch.
        seed: Seed of the permutations and, through :class:`SampleIndex`, of the views.
            None: a random seed, the same on every rank.
        shards_at_once: k >= 1, for shards from the web or on disks that are slow at random
            access. 16 mixes well if images are spread over the shards at random, as
            simclr-mm pack does. None: any image at any time.
        groups: 'apart' or 'together', for a dataset whose images have groups, as
            ``simclr_mm.ImageList``. None: the order knows no groups.

    Raises:
        UserError: The dataset has fewer images than there are ranks, has no shards for
            ``shards_at_once`` or no groups for ``groups``, or would fetch a shard for every image.

    Differs: MMEngine's DefaultSampler repeats images to make ranks even, cannot start
        inside an epoch, and sends neither seed nor epoch to the transforms.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        shards_at_once: int | None = None,
        groups: str | None = None,
    ) -> None:
        if seed is not None and not 0 <= seed < 2**63:
            raise UserError(f'train_dataloader.sampler.seed = {seed}: give a whole number from 0.')
        self.rank, self.world_size = get_dist_info()
        self.num_images = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.start = 0
        self.dealt: tuple[int, int] | None = None  # ranks and their batch, if not this run's
        if len(self) == 0:
            raise UserError(
                f'train_dataloader.dataset has {self.num_images} images for '
                f'{self.world_size} processes: every process needs at least one.'
            )
        self.shards_at_once = shards_at_once
        self.groups = groups
        self.group_of = None if groups is None else self._groups_of(dataset, groups)
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

    def _groups_of(self, dataset: Sized, groups: str) -> Tensor:
        """(N,) the group of each image, numbered from 0."""
        key = f'train_dataloader.sampler.groups = {groups!r}'
        if groups not in ('apart', 'together') or not self.shuffle or self.shards_at_once:
            raise UserError(
                f"{key}: write 'apart' or 'together', with shuffle=True and without "
                'shards_at_once, or leave it out.'
            )
        groups_of_images = getattr(dataset, 'groups_of_images', None)
        numbers = np.array([-1] if groups_of_images is None else groups_of_images())
        if (numbers < 0).all():
            raise UserError(
                f'{key}: the images of this dataset have no groups: give a table with the column '
                'group to simclr_mm.ImageList, groups=FILE to arrays and shards, or leave it out.'
            )
        # Apart, the images in no group are spread like one group. Together, each is alone.
        alone = -1 if groups == 'apart' else -1 - np.arange(len(numbers))
        units = np.where(numbers < 0, alone, numbers)
        return torch.from_numpy(np.unique(units, return_inverse=True)[1])

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the permutation, and the position where the next iterator starts.

        Args:
            epoch: Epoch, from 0.
            start: Images of this rank to skip, in [0, len(self)].
        """
        self.epoch = epoch
        self.start = start

    def deal_as(self, ranks: int, batch_size: int) -> None:
        """Deal every global batch of a run on another number of ranks to the ranks of this one.

        The images of a step, in the order of ranks, stay the same. Each rank gets an equal part.

        Args:
            ranks: Ranks of that run.
            batch_size: Images that each of them took in a step. ``ranks * batch_size`` has to be
                a multiple of this run's ranks.
        """
        self.dealt = ranks, batch_size

    def __iter__(self) -> Iterator[SampleIndex]:
        order = self._order()
        if self.dealt is not None:
            mine = self._dealt_as_before(order, *self.dealt)
        elif self.shards is None:
            mine = order[self.rank :: self.world_size][: len(self)]
        else:
            mine = order[self.rank * len(self) :][: len(self)]
        mine = mine[self.start :]
        ahead = self._ahead(mine) if self.is_remote else {}
        for place, index in enumerate(mine.tolist()):
            yield SampleIndex(index, self.seed, self.epoch, ahead.get(place))

    def _order(self) -> Tensor:
        """(N,) the epoch's permutation, a function of seed, epoch, shards and groups."""
        if not self.shuffle:
            return torch.arange(self.num_images)
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        if self.group_of is not None:
            return self._order_of_groups(self.group_of, generator)
        if self.shards is None or self.shards_at_once is None:
            return torch.randperm(self.num_images, generator=generator)
        count = len(self.shard_ids)
        places = torch.randperm(count, generator=generator)[self.shards]  # (N,)
        delay = torch.rand(self.num_images, generator=generator, dtype=torch.double)
        points = (places + delay * min(self.shards_at_once, count)) % count
        return points.argsort(stable=True)

    def _order_of_groups(self, group_of: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) a permutation with the images of a group apart or together."""
        order = torch.randperm(self.num_images, generator=generator)
        order = order[group_of[order].argsort(stable=True)]  # by group, at random in it
        sizes = group_of.bincount()
        start = torch.rand(len(sizes), generator=generator, dtype=torch.double)
        points = start[group_of[order]]  # in [0, 1), one for each group
        if self.groups == 'apart':
            size = sizes[group_of[order]]
            place = torch.arange(self.num_images) - (sizes.cumsum(0) - sizes)[group_of[order]]
            points = (place + points) / size
        return order[points.argsort(stable=True)]

    def _dealt_as_before(self, order: Tensor, ranks: int, batch_size: int) -> Tensor:
        """(len(self),) this rank's part of the batches that so many ranks had together."""
        count = self.num_images // ranks
        used = order[: count * ranks]
        shares = used.view(count, ranks).T if self.shards is None else used.view(ranks, count)
        steps = count // batch_size
        whole = shares[:, : steps * batch_size].reshape(ranks, steps, batch_size)
        rest = shares[:, steps * batch_size :].flatten()  # a last, smaller batch
        # (steps, ranks * batch_size) in the order of ranks, cut into as many parts as there are now
        batches = whole.transpose(0, 1).flatten(1)
        size, last = batches.shape[1] // self.world_size, len(rest) // self.world_size
        return torch.cat(
            [batches[:, self.rank * size :][:, :size].flatten(), rest[self.rank * last :][:last]]
        )

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
        if self.dealt is None:
            return self.num_images // self.world_size
        ranks, batch_size = self.dealt
        count = self.num_images // ranks
        steps = count // batch_size
        last = ranks * (count - steps * batch_size)
        return steps * (ranks * batch_size // self.world_size) + last // self.world_size
