"""The linear probe of one run, in a process of its own.

``python -m simclr_mm.apis.linear_run CONFIG CHECKPOINT FILE`` writes the accuracy in
percent to FILE, as JSON.
"""
import json
import sys
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device

from simclr_mm.checkpoints.atomic import atomic_file
from simclr_mm.engine import Runner
from simclr_mm.evaluation import extract_features, linear_probe

from .model_zoo import get_model


def linear_accuracy(cfg: Config, checkpoint: str) -> float:
    """Fit a linear probe on the gallery of the val dataset, score it on the queries.

    Source: SimCLR, arXiv:2002.05709, Sec. 2.3, linear evaluation.

    Args:
        cfg: A pretraining config, whose val dataset is a GalleryAndQuery.
        checkpoint: Weights of its model.

    Returns:
        Top-1 accuracy in percent.
    """
    model = get_model(cfg, pretrained=checkpoint, device=get_device())
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    features, labels = extract_features(model, loader)
    in_gallery = np.arange(len(labels)) < len(loader.dataset.rows)
    train = features[in_gallery], labels[in_gallery]
    return 100 * linear_probe(train, (features[~in_gallery], labels[~in_gallery]))


def main(config: str, checkpoint: str, out: str) -> None:
    accuracy = linear_accuracy(Config.fromfile(config), checkpoint)
    with atomic_file(Path(out)) as file:
        file.write(json.dumps(accuracy).encode())


if __name__ == '__main__':
    main(*sys.argv[1:])
