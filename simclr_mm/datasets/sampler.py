"""A sampler whose position is a number, so that a run can stop and resume anywhere."""
from typing import Iterator, Optional

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from simclr_mm.registry import DATA_SAMPLERS


class SampleIndex(int):
    """The index of an image that also says which run and which epoch asks for it.

    MMEngine's datasets hand the index they were asked for to their transforms as
    ``results['sample_idx']``; with these two numbers a view is a function of (seed,
    epoch, image, view) in whatever worker process it is made.

    Args:
        index: Position in the dataset, >= 0.
        seed: The run's seed.
        epoch: Epoch the image is drawn for, from 0.
    """
    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int = 0, epoch: int = 0) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        self.epoch = epoch
        return self

    def __reduce__(self):
        return SampleIndex, (int(self), self.seed, self.epoch)

    def at(self, index: int) -> 'SampleIndex':
        """Another image of the same run and epoch."""
        return SampleIndex(index, self.seed, self.epoch)

    def __sub__(self, offset: int) -> 'SampleIndex':
        # ConcatDataset turns a global index into a member's by subtraction.
        return self.at(int(self) - int(offset))


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """One permutation an epoch, dealt to the ranks in turn, started anywhere.

    With ``drop_last=True`` in the dataloader the batches of all ranks together are one
    permutation of the dataset cut to whole global batches; the remainder, smaller than
    one global batch, changes with the epoch's permutation.

    Args:
        dataset: Its length is all that is used.
        shuffle: False gives the dataset's own order in every epoch.
        seed: Seed of the permutations and, through :class:`SampleIndex`, of the views.
            None: a random one, the same on every rank.

    Raises:
        ValueError: The dataset has fewer images than there are ranks.

    Differs: MMEngine's DefaultSampler repeats images to make ranks even, cannot start
        inside an epoch, and tells the transforms neither seed nor epoch.
    """

    def __init__(self,
                 dataset: Dataset,
                 shuffle: bool = True,
                 seed: Optional[int] = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.num_images = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.start = 0
        if len(self) == 0:
            raise ValueError(
                f'train_dataloader.dataset has {self.num_images} images for '
                f'{self.world_size} processes: every process needs at least one.')

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the permutation and the place in it where the next iterator begins.

        Args:
            epoch: Epoch, from 0.
            start: Images of this rank to pass over, in [0, len(self)].
        """
        self.epoch = epoch
        self.start = start

    def __iter__(self) -> Iterator[SampleIndex]:
        if self.shuffle:
            generator = torch.Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = torch.randperm(self.num_images, generator=generator)
        else:
            order = torch.arange(self.num_images)
        mine = order[self.rank::self.world_size][:len(self)]
        for index in mine[self.start:].tolist():
            yield SampleIndex(index, self.seed, self.epoch)

    def __len__(self) -> int:
        """Images of this rank in a whole epoch."""
        return self.num_images // self.world_size
