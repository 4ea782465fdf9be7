"""A few labelled images of a dataset, for semi-supervised fine-tuning."""

import posixpath
from collections import Counter
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from simclr_mm.class_balance import class_balanced_subset
from simclr_mm.errors import UserError
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
) -> BaseDataset:
    """Build a dataset and keep the images whose labels may be used.

    A function, because the result is the dataset itself with fewer images (MMEngine's
    ``get_subset_``): its pipeline, classes and indices are what they are everywhere.
    The images depend on the dataset and the seed only, so they are the same on every
    rank and in every run.

    Source: SimCLR, arXiv:2002.05709, Sec. 6: 1 % or 10 % of the labels, balanced over
    the classes.

    Args:
        dataset: Config of a labelled dataset, with its pipeline.
        share: Of the images of each class, in (0, 1], rounded; at least one image.
        per_class: Images of each class, >= 1, instead of a share.
        list_file: Text file with the name of one image a line, instead of a draw:
            a file name, or as much of the path as makes it unique
            (``<class>/<file>``).
        seed: Seed of the draw; not used with a list.
        rest: Keep all the other images instead, for example to test on.

    Returns:
        The dataset, reduced, in its own order.

    Raises:
        ValueError: Not exactly one of share, per_class and list_file, or one out of
            range; a class with fewer images; a list that does not exist or whose names
            are absent, ambiguous or listed twice; a dataset without what is needed.
    """
    given = dict(share=share, per_class=per_class, list_file=list_file)
    if sum(value is not None for value in given.values()) != 1:
        raise UserError(
            f'LabelSubset takes exactly one of share, per_class and list_file, not {given}.'
        )
    names = _read_list(list_file) if list_file is not None else []
    built = MMPRETRAIN_DATASETS.build(dataset)
    if not isinstance(built, BaseDataset):
        raise UserError(
            f'LabelSubset.dataset is {dataset["type"]}: it has to be one '
            "of MMEngine's BaseDatasets, which know their images."
        )
    size = len(built)
    if list_file is not None:
        rows = _rows_of_names(built, names, list_file)
    elif share is not None:
        rows = stratified_subset(labels_of(built, 'LabelSubset.dataset'), share, seed)
    else:
        rows = class_balanced_subset(labels_of(built, 'LabelSubset.dataset'), per_class or 0, seed)
    if rest:
        rows = np.setdiff1d(np.arange(size), rows)
    built.get_subset_(rows.tolist())
    counts = np.bincount(labels_of(built, 'LabelSubset.dataset'))
    print_log(
        f'{len(built)} of the {size} images of {dataset["type"]} have labels: '
        f'{counts[counts > 0].min()} to {counts.max()} in each of '
        f'{(counts > 0).sum()} classes',
        logger='current',
    )
    return built


def stratified_subset(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw the same share of every class, without replacement.

    Args:
        labels: (n,) class of each example.
        share: In (0, 1]; of a class of m examples the whole number nearest to share * m
            is drawn, and at least one.
        seed: Seed of the draw.

    Returns:
        Sorted rows.

    Raises:
        ValueError: share is out of range.

    Differs: scikit-learn's ``train_test_split(stratify=...)`` refuses a subset smaller
        than the number of classes and may leave a small class out.
    """
    if not 0 < share <= 1:
        raise UserError(
            f'LabelSubset.share = {share}: give a number above 0 and up to 1, 0.01 for 1 %.'
        )
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, int(share * len(members) + 0.5))
        rows.append(rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(rows))


def _read_list(list_file: str) -> list[str]:
    """Names in a list of images, each once."""
    path = Path(list_file)
    if not path.is_file():
        part = '10percent.txt' if '10' in path.name else '1percent.txt'
        raise UserError(
            f'LabelSubset.list_file: there is no file {path.absolute()}. That of '
            f'ImageNet: curl -L --create-dirs -o {path} {_PUBLISHED}{part}. For other '
            'images set list_file=None and share or per_class instead.'
        )
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise UserError(
            f'{path} lists images more than once ({len(repeated)}): '
            f'{_first(repeated)}. Remove the repetitions.'
        )
    if not names:
        raise UserError(f'{path} lists no image.')
    return names


def _rows_of_names(dataset: BaseDataset, names: list[str], list_file: str) -> np.ndarray:
    """Sorted rows of the listed images.

    Raises:
        ValueError: the images have no path; a name is that of none, or of several.
    """
    found: dict[str, list[int]] = {name: [] for name in names}
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(posixpath.basename(name), []).append(name)
    for row in range(len(dataset)):
        path = dataset.get_data_info(row).get('img_path')
        if path is None:
            raise UserError(
                f'LabelSubset.list_file: the images of {type(dataset).__name__} are no '
                'files and have no names; set share or per_class instead.'
            )
        for name in by_file.get(posixpath.basename(path), ()):
            if f'/{path}'.endswith(f'/{name}'):
                found[name].append(row)
    missing = [name for name, rows in found.items() if not rows]
    if missing:
        raise UserError(
            f'{list_file} lists {len(names)} images, {len(missing)} of which are not '
            f'among the {len(dataset)} of {type(dataset).__name__}: {_first(missing)}. '
            'Is it the list of this dataset, and is the dataset complete?'
        )
    several = [name for name, rows in found.items() if len(rows) > 1]
    if several:
        raise UserError(
            f'{list_file} has names that belong to several images ({len(several)}): '
            f'{_first(several)}. Write <class>/<file>.'
        )
    chosen = np.sort([row for rows in found.values() for row in rows])
    if len(np.unique(chosen)) < len(chosen):
        raise UserError(
            f'{list_file} lists an image by two names, with and without '
            'its folder. Remove one of them.'
        )
    return chosen


def _first(names: list[str]) -> str:
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
