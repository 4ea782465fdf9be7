"""A dataset in one array, which returns single images or whole batches.

N images of the dataset, n of a batch, V views, S side of a view in pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dataset import default_collate, force_full_init
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.structures import DataSample

from simclr_mm.errors import UserError
from simclr_mm.registry import FUNCTIONS
from simclr_mm.transforms import TwoViews

from .array_cache import Arrays
from .groups import GroupedImages, groups_of_rows


class ArrayDataset(GroupedImages, BaseDataset):
    """Images in one uint8 array (N, H, W, 3), BGR, with one label each.

    Args:
        data_root: Folder of the data. Ignored if a library contains the data.
        split: One of the class's ``SPLITS``.
        with_label: Whether samples have ``gt_label``. Images without a label (STL-10's
            unlabelled split) never have it.
        pipeline: Transforms of one sample.
        batched: Make the views of a batch at once, without collation. The
            pipeline is [TwoViews, PackInputs]; ``collate_fn`` of the dataloader is
            ``dict(type='simclr_mm.collate')``. The views equal those of single images.
        groups: A file with the group of each image, one a line in the order of the array: text,
            ``.npy``, or ``.csv`` or ``.parquet`` with the column ``group``. None: no groups.
        positives: 'image' or 'group', as in :class:`~.image_list.ImageList`.
        **kwargs: As for mmpretrain's BaseDataset, for example ``indices``.

    Raises:
        UserError: An unknown split, another pipeline with ``batched``, or groups that do not fit.
    """

    SPLITS: tuple[str, ...] = ('train', 'test')
    FIXED: tuple[str, ...] = ('ann_file', 'serialize_data')  # given to the base class

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        with_label: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        batched: bool = False,
        groups: str | None = None,
        positives: str = 'image',
        **kwargs,
    ) -> None:
        self.groups = groups
        self._set_positives(positives)
        if split not in self.SPLITS:
            raise UserError(
                f'{type(self).__name__}.split is {split!r}: choose one of {", ".join(self.SPLITS)}.'
            )
        self.split = split
        self.with_label = with_label
        self.batched = batched
        # Forked workers share the array. A serialised copy would double the memory.
        super().__init__(
            ann_file='',
            data_root=data_root,
            pipeline=list(pipeline),
            serialize_data=False,
            **kwargs,
        )
        if batched:
            self._views()

    def load_arrays(self) -> Arrays:
        """Images, labels and class names."""
        raise NotImplementedError

    def load_data_list(self) -> list:
        self.images, labels, classes = self.load_arrays()
        self._metainfo.setdefault('classes', tuple(classes))
        data = [
            dict(row=row, gt_label=int(label)) if self.with_label and label >= 0 else dict(row=row)
            for row, label in enumerate(labels)
        ]
        if self.groups is not None:
            for entry, group in zip(data, groups_of_rows(self.groups, len(data)).tolist()):
                entry['group'] = group
        return data

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        info['img'] = self.images[info.pop('row')].copy()  # the array is read-only
        info['img_shape'] = info['ori_shape'] = info['img'].shape[:2]
        return info

    def _facts(self, row: int) -> dict[str, Any]:
        return self.data_list[row]

    def _shown(self) -> str:
        return self.data_root or type(self).__name__

    @force_full_init
    def __getitems__(self, indices: Sequence[int]) -> dict | list[dict]:
        """The samples of a batch, for torch's DataLoader.

        The (n,) indices are of type :class:`SampleIndex` for reproducible views. If batched, it is
        a batch: ``inputs`` of :meth:`TwoViews.batch`, ``sample_idx``, and ``data_samples`` with
        labels and groups if there are any. Else it is a list of n samples.
        """
        if not self.batched:
            return [self[index] for index in indices]
        rows = [self.data_list[index]['row'] for index in indices]
        images = self.images[rows]  # (n, H, W, 3), a copy
        views = self._views()
        others = None
        if self._mates is not None:
            mates = [[self.mate(i, v) for v in range(1, views.num_views)] for i in indices]
            others = self.images[[[self.data_list[k]['row'] for k in each] for each in mates]]
        batch = dict(
            inputs=views.batch(images, indices, others),
            sample_idx=[int(index) for index in indices],
        )
        if self.with_label or self.groups is not None:
            batch['data_samples'] = [self._data_sample(index) for index in indices]
        return batch

    def _data_sample(self, index: int) -> DataSample:
        entry = self.data_list[index]
        about = {key: entry[key] for key in ('group',) if key in entry}
        sample = DataSample(metainfo=dict(sample_idx=int(index), **about))
        label = entry.get('gt_label')
        return sample if label is None else sample.set_gt_label(label)

    def _views(self) -> TwoViews:
        steps = self.pipeline.transforms
        if [type(step) for step in steps] != [TwoViews, PackInputs]:
            raise UserError(
                f'{type(self).__name__}(batched=True) needs the pipeline '
                "[dict(type='simclr_mm.TwoViews', ...), dict(type='PackInputs')], got "
                f'{[type(step).__name__ for step in steps]}: move transforms into '
                'TwoViews, or write batched=False.'
            )
        return steps[0]


@FUNCTIONS.register_module()
def collate(samples: dict | Sequence[dict]) -> Any:
    """Return a whole batch unchanged, and make a batch from a list of samples.

    Args:
        samples: A batch from ``__getitems__``, or a list for MMEngine's default_collate.
    """
    return samples if isinstance(samples, dict) else default_collate(samples)
