"""A labelled subset of a dataset, for semi-supervised fine-tuning."""

import posixpath
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from simclr_mm.class_balance import class_balanced_subset, draw_of_each_class
from simclr_mm.errors import UserError, listed
from simclr_mm.registry import DATASETS

from .gallery_query import labels_of

_PUBLISHED = 'https://raw.githubusercontent.com/google-research/simclr/master/imagenet_subsets/'


@DATASETS.register_module(name='LabelSubset')
def label_subset(
    dataset: dict,
    share: float | None = None,
    per_class: int | None = None,
    list_file: str | None = None,
    seed: int = 0,
    rest: bool = False,
    pipeline: list | None = None,
) -> BaseDataset:
    """Build a dataset and keep only the images whose labels may be used.

    It is a function, because the result is the dataset itself with fewer images (MMEngine's
    ``get_subset_``), with its pipeline, classes and indices. The images depend only on the
    dataset and the seed, so they are the same on every rank and in every run.

    Source: SimCLR, arXiv:2002.05709, Sec. 6: 1 % or 10 % of the labels, balanced over the classes.

    Args:
        dataset: Config of a labelled dataset, with its pipeline.
        share: Share of the images of each class, in (0, 1], rounded; at least one image.
        per_class: Images of each class, >= 1, instead of a share.
        list_file: Text file with one image name a line, instead of a draw: a file name, or
            as much of the path as makes it unique (``<class>/<file>``).
        seed: Seed of the draw. Ignored with a list.
        rest: Keep all the other images instead, for example for testing.
        pipeline: Transforms instead of the dataset's, as a GalleryAndQuery gives them.

    Returns:
        The reduced dataset, in its own order.

    Raises:
        UserError: Not exactly one of share, per_class and list_file is given, it does not
            fit the dataset, or the dataset has no labels or, for a list, no files.
    """
    given = dict(share=share, per_class=per_class, list_file=list_file)
    if sum(value is not None for value in given.values()) != 1:
        raise UserError(
            f'LabelSubset takes exactly one of share, per_class and list_file, not {given}.'
        )
    names = _read_list(list_file) if list_file is not None else []
    if pipeline is not None:
        dataset = {**dataset, 'pipeline': pipeline}
    built = MMPRETRAIN_DATASETS.build(dataset)
    if not isinstance(built, BaseDataset):
        raise UserError(
            f'LabelSubset.dataset is {dataset["type"]}: write a subclass of BaseDataset.'
        )
    size, labels = len(built), labels_of(built, 'LabelSubset.dataset')
    if list_file is not None:
        rows = _rows_of_names(built, names, list_file)
    elif share is not None:
        rows = stratified_subset(labels, share, seed)
    else:
        rows = class_balanced_subset(labels, per_class or 0, seed)
    if rest:
        rows = np.setdiff1d(np.arange(size), rows)
    built.get_subset_(rows.tolist())
    counts = np.unique(labels[rows], return_counts=True)[1]
    print_log(
        f'{len(built)} of the {size} images of {dataset["type"]} have labels: '
        f'{counts.min()} to {counts.max()} in each of {len(counts)} classes',
        logger='current',
    )
    return built


def stratified_subset(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw the same share of every class, without replacement.

    Args:
        labels: (n,) class of each example.
        share: In (0, 1]. A class of m examples gives share * m examples, rounded, and at least one.
        seed: Seed of the draw.

    Returns:
        Sorted rows.

    Raises:
        UserError: share is out of range.

    Differs: scikit-learn's ``train_test_split(stratify=...)`` refuses a subset smaller
        than the number of classes and may leave a small class out.
    """
    if not 0 < share <= 1:
        raise UserError(
            f'LabelSubset.share = {share}: give a number above 0 and up to 1, 0.01 for 1 %.'
        )
    return draw_of_each_class(labels, lambda size: max(1, int(share * size + 0.5)), seed)


def _read_list(list_file: str) -> list[str]:
    """Names in a list of images."""
    path = Path(list_file)
    if not path.is_file():
        part = '10percent.txt' if '10' in path.name else '1percent.txt'
        raise UserError(
            f'LabelSubset.list_file: there is no file {path.absolute()}. That of '
            f'ImageNet: curl -L --create-dirs -o {path} {_PUBLISHED}{part}. For other '
            'images set list_file=None and share or per_class instead.'
        )
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not names:
        raise UserError(f'{path} lists no image.')
    return names


def _rows_of_names(dataset: BaseDataset, names: list[str], list_file: str) -> np.ndarray:
    """Sorted rows of the listed images. Each name is one image of the dataset."""
    ends: dict[str, list[str]] = defaultdict(list)
    found: dict[str, list[int]] = {name: [] for name in names}
    for name in found:
        ends[posixpath.basename(name)].append(name)
    for row in range(len(dataset)):
        path = dataset.get_data_info(row).get('img_path')
        if path is None:
            raise UserError(
                f'LabelSubset.list_file: the images of {type(dataset).__name__} have no '
                'file names; set share or per_class instead.'
            )
        for name in ends.get(posixpath.basename(path), ()):
            if f'/{path}'.endswith(f'/{name}'):
                found[name].append(row)
    _refuse(
        [name for name, rows in found.items() if not rows],
        f'{list_file} lists images that are not among the {len(dataset)} of '
        f'{type(dataset).__name__}',
        'Is it the list of this dataset, and is the dataset complete?',
    )
    _refuse(
        [name for name, rows in found.items() if len(rows) > 1],
        f'{list_file} has names that belong to several images',
        'Write <class>/<file>.',
    )
    times = Counter(found[name][0] for name in names)
    _refuse(
        [name for name, (row,) in found.items() if times[row] > 1],
        f'{list_file} lists images more than once, maybe with and without their folder',
        'Remove the repetitions.',
    )
    return np.sort(list(times))


def _refuse(names: list[str], problem: str, remedy: str) -> None:
    """Raise a UserError if there are such names."""
    if names:
        raise UserError(f'{problem} ({len(names)}): {listed(names)}. {remedy}')
