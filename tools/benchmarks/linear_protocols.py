"""Linear evaluation twice on the same features: as published, and the fast one.

The published protocol trains a linear layer with the optimizer, the schedule and the
batch of a benchmark config, here on features without augmentation; the fast one is
logistic regression with a swept L2 penalty.
"""

import time

import torch
import torch.nn.functional as F
from checkpoint_features import gallery_and_queries_of, parser
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import OPTIMIZERS, DefaultScope
from torch import Tensor, nn

import simclr_mm.engine  # noqa: F401  registers LARS
from simclr_mm.commands import command_line
from simclr_mm.evaluation import swept_linear_probe


def train_linear_layer(
    cfg: Config, features: Tensor, labels: Tensor, batch: int, seed: int
) -> nn.Linear:
    """Train a linear layer by a benchmark config's optimizer, cosine decay and epochs.

    Args:
        cfg: The benchmark config.
        features: (n, C).
        labels: (n,).
        batch: Images a step; the learning rate follows it linearly.
        seed: Of the order of the images and of the layer's first weights.
    """
    torch.manual_seed(seed)
    layer = nn.Linear(features.shape[1], int(labels.max()) + 1).to(features.device)
    nn.init.normal_(layer.weight, std=0.01)  # as LinearClsHead
    nn.init.zeros_(layer.bias)
    settings = dict(cfg.optim_wrapper.optimizer)
    settings['lr'] *= batch / cfg.auto_scale_lr.base_batch_size
    with DefaultScope.overwrite_default_scope('simclr_mm'):
        optimizer = OPTIMIZERS.build(dict(settings, params=layer.parameters()))
    epochs = cfg.train_cfg.max_epochs
    steps = epochs * -(-len(features) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return layer


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument('benchmarks', nargs='+', help='linear configs, of configs/benchmarks')
    flags.add_argument('--batch', type=int, help='images a step; default: that of the config')
    flags.add_argument('--seed', type=int, default=0)
    args = flags.parse_args()
    train, test = gallery_and_queries_of(args)

    started = time.time()
    found = swept_linear_probe(train, test)
    print(
        f'fast: {100 * found.accuracy:.2f} %, penalty {found.penalty:.3g}, '
        f'{time.time() - started:.0f} s'
    )
    x, y = (torch.from_numpy(part).to(get_device()) for part in train)
    for path in args.benchmarks:
        started = time.time()
        benchmark = Config.fromfile(path)
        batch = args.batch or benchmark.auto_scale_lr.base_batch_size
        layer = train_linear_layer(benchmark, x, y, batch, args.seed)
        with torch.no_grad():
            predicted = layer(torch.from_numpy(test[0]).to(x)).argmax(dim=1).cpu()
        accuracy = 100 * float((predicted.numpy() == test[1]).mean())
        print(f'{path}: {accuracy:.2f} %, batch {batch}, {time.time() - started:.0f} s')


if __name__ == '__main__':
    command_line.run(main)
