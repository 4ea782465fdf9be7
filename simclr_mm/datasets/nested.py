"""Datasets inside datasets, as a LabelSubset or a ConcatDataset has them: built, or as configs."""

from collections.abc import Iterator, Sequence
from typing import Any

from simclr_mm.transforms import TwoViews


def members(dataset: Any) -> list:
    """The datasets around which this one stands."""
    if hasattr(dataset, 'datasets'):
        return list(dataset.datasets)
    return [dataset.dataset] if hasattr(dataset, 'dataset') else []


def transforms_of(dataset: Any) -> Sequence:
    """The steps of a dataset's pipeline; none if it has no pipeline."""
    return getattr(getattr(dataset, 'pipeline', None), 'transforms', ())


def views_in(dataset: Any) -> Iterator[TwoViews]:
    """Every TwoViews of a dataset and of the datasets in it."""
    for each in members(dataset):
        yield from views_in(each)
    for each in transforms_of(dataset):
        if isinstance(each, TwoViews):
            yield each


def innermost(dataset: Any) -> Any:
    """The config of the dataset inside wrappers, such as a LabelSubset."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def with_pipeline(dataset: dict[str, Any], pipeline: Sequence[dict]) -> dict[str, Any]:
    """The config of a dataset with these transforms, also inside a LabelSubset."""
    if 'dataset' in dataset:
        return dict(dataset, dataset=with_pipeline(dataset['dataset'], pipeline))
    if 'datasets' in dataset:
        return dict(
            dataset, datasets=[with_pipeline(each, pipeline) for each in dataset['datasets']]
        )
    return dict(dataset, pipeline=pipeline)
