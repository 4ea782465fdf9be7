"""The metrics of a test loop in the form of every evaluation."""
from pathlib import Path
from typing import Dict, Tuple

from mmengine.config import Config
from mmengine.model import BaseModel, is_model_wrapper

from simclr_mm.evaluation import EvaluationRun, Result

from .fingerprint import weights_hash

# By the prefix of a metric's name.
_PROTOCOLS = dict(accuracy='classifier', knn='knn')


def run_of_metrics(metrics: Dict[str, float], cfg: Config, config: str, checkpoint: str,
                   model: BaseModel, seconds: float) -> EvaluationRun:
    """Results of a test loop.

    Args:
        metrics: As MMEngine's runner gives them, such as ``{'knn/top1': 58.3}``.
        cfg: The config as it was evaluated.
        config: Its path.
        checkpoint: Path or URL.
        model: The model that was tested.
        seconds: That the evaluation took.
    """
    dataset, split = scored_dataset(cfg)
    results = []
    for name, value in metrics.items():
        prefix, _, metric = name.rpartition('/')
        protocol = _PROTOCOLS.get(prefix, prefix)
        results.append(
            Result('classification', dataset, split, 'checkpoint', protocol, metric,
                   float(value)))
    model = model.module if is_model_wrapper(model) else model
    return EvaluationRun(config, checkpoint, weights_hash(model), None, seconds,
                         results)


def scored_dataset(cfg: Config) -> Tuple[str, str]:
    """Name and split of the images that a config's test scores.

    Of class folders the last two names of the path, of a GalleryAndQuery the queries.
    """
    dataset = cfg.test_dataloader.dataset
    dataset = dataset.get('query', dataset)
    if 'split' in dataset:
        return dataset.type.split('.')[-1], dataset.split
    folder = Path(dataset.data_root).absolute()
    return folder.parent.name, folder.name
