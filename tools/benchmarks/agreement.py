"""Compare our kNN and linear evaluation with others, on the features of a checkpoint.

The references are scikit-learn's kNN and logistic regression. Differing kNN predictions
count as ties if the votes of two classes, or the similarities of the k-th and the next
neighbour, are equal to float32's precision. --published also compares the swept logistic
regression with the published protocol: a linear layer trained with the optimizer, the
schedule and the batch of a benchmark config, here on features without augmentation.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import OPTIMIZERS, DefaultScope
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor, nn

import simclr_mm.engine  # noqa: F401  registers LARS
from simclr_mm.apis import load_encoder
from simclr_mm.commands import command_line
from simclr_mm.commands.evaluate.image_features import gallery_and_queries
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.evaluation import Labelled, knn_predict, swept_linear_probe
from simclr_mm.evaluation.logistic_regression import LogisticRegression


def knn_agreement(
    train: Labelled, test: Labelled, k: int, temperature: float
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Predict with both implementations. Labels are 0 to K - 1.

    Returns:
        The number of differing predictions, the number of ties among them, our
        predictions, and scikit-learn's.
    """
    gallery, queries = (normalize(part[0].astype(np.float64)) for part in (train, test))

    def weights(distance: np.ndarray) -> np.ndarray:
        # |x - y|^2 = 2 - 2 cos for unit vectors.
        return np.exp(-(distance**2) / 2 / temperature)

    reference = KNeighborsClassifier(k, weights=weights, algorithm='brute').fit(gallery, train[1])
    expected = reference.predict(queries)
    tensors = map(torch.from_numpy, (test[0], *train))
    ours = knn_predict(*tensors, k, temperature).numpy()
    differing = queries[ours != expected]
    ties = 0
    if len(differing):
        votes = np.sort(reference.predict_proba(differing), axis=1)
        distances, _ = reference.kneighbors(differing, min(k + 1, len(gallery)))
        cosines = 1 - distances**2 / 2
        close = votes[:, -1] - votes[:, -2] < 1e-5 * votes[:, -1]
        ties = int((close | (cosines[:, -2] - cosines[:, -1] < 1e-6)).sum())
    return len(differing), ties, ours, expected


def linear_agreement(
    train: Labelled, test: Labelled, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of our fit and of scikit-learn's, on standardised features."""
    scaler = StandardScaler().fit(train[0])
    reference = Reference(C=1 / penalty, max_iter=10_000, tol=1e-4)
    reference.fit(scaler.transform(train[0]), train[1])
    regression = LogisticRegression(*train, int(train[1].max()) + 1, get_device())
    ours = regression.fit(penalty).logits(test[0]).argmax(axis=1)
    return ours, reference.predict(scaler.transform(test[0]))


def train_linear_layer(cfg: Config, features: Tensor, labels: Tensor, seed: int) -> nn.Linear:
    """Train a linear layer with a benchmark config's optimizer, batch, cosine decay and epochs.

    The seed is that of the order of the images and of the layer's first weights.
    """
    torch.manual_seed(seed)
    layer = nn.Linear(features.shape[1], int(labels.max()) + 1).to(features.device)
    nn.init.normal_(layer.weight, std=0.01)  # as in LinearClsHead
    nn.init.zeros_(layer.bias)
    settings = dict(cfg.optim_wrapper.optimizer, params=layer.parameters())
    with DefaultScope.overwrite_default_scope('simclr_mm'):
        optimizer = OPTIMIZERS.build(settings)
    epochs, batch = cfg.train_cfg.max_epochs, cfg.auto_scale_lr.base_batch_size
    steps = epochs * -(-len(features) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return layer


@command_line.command
def main(argv: list[str] | None = None) -> None:
    flags = ('config', 'checkpoint', '--seed', '--cache', '--cfg-options', '--trust-checkpoint')
    parser = command_line.parser_of(__doc__, *flags)
    add = parser.add_argument
    add('--k', type=int, nargs='*', default=[1, 20, 200])
    add('--temperature', type=float, default=0.07)
    add('--penalty', type=float, nargs='*', default=[1.0], help='1 / C of scikit-learn')
    add('--published', nargs='*', default=[], help='linear configs, of configs/benchmarks')
    args = parser.parse_args(argv)

    cfg = command_line.read_config(args.config)
    merge_cfg_options(cfg, args.cfg_options)
    encoder = load_encoder(args.checkpoint, cfg, get_device())
    train, test = gallery_and_queries(encoder, cfg.test_dataloader, args.cache)

    def top1(predicted: np.ndarray) -> str:
        return f'{100 * (predicted == test[1]).mean():.2f} %'

    for k in args.k:
        started = time.time()
        differing, ties, ours, expected = knn_agreement(train, test, k, args.temperature)
        print(
            f'kNN, k {k}: {top1(ours)}, scikit-learn {top1(expected)}; {differing} of {len(ours)} '
            f'predictions differ, {ties} of them ties; {time.time() - started:.0f} s'
        )
    for penalty in args.penalty:
        started = time.time()
        ours, expected = linear_agreement(train, test, penalty)
        print(
            f'linear, penalty {penalty:g}: {top1(ours)}, scikit-learn '
            f'{top1(expected)}; {(ours != expected).sum()} of {len(ours)} '
            f'predictions differ; {time.time() - started:.0f} s'
        )
    if args.published:
        started = time.time()
        found = swept_linear_probe(train, test)
        accuracy, seconds = 100 * found.accuracy, time.time() - started
        print(f'fast: {accuracy:.2f} %, penalty {found.penalty:.3g}, {seconds:.0f} s')
    x, y = (torch.from_numpy(part).to(get_device()) for part in train)
    for path in args.published:
        started = time.time()
        layer = train_linear_layer(Config.fromfile(path), x, y, args.seed)
        with torch.no_grad():
            predicted = layer(torch.from_numpy(test[0]).to(x)).argmax(dim=1).cpu()
        print(f'{path}: {top1(predicted.numpy())}, {time.time() - started:.0f} s')


if __name__ == '__main__':
    main()
