"""The cells of the paper's studies: the settings of each in a config.

Source: SimCLR, arXiv:2002.05709.
"""

from collections.abc import Iterator, Sequence
from itertools import product

from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS

from simclr_mm.errors import UserError
from simclr_mm.evaluation import Value
from simclr_mm.registry import type_name

Options = dict[str, object]  # as in --cfg-options, but with any value
Cell = tuple[tuple[Value, ...], Options]  # a value of each axis, and their options

PIPELINE = 'train_dataloader.dataset.pipeline'

# The names of Fig. 5. Each applies to every image, so that cells differ in the
# transformation and not in its probability. Colour keeps its inner probabilities.
TRANSFORMATIONS: dict[str, Options] = dict(
    crop=dict(type='simclr_mm.RandomCropAndFlip'),
    cutout=dict(type='simclr_mm.RandomCutout'),
    color=dict(type='simclr_mm.ColorDistortion', strength=1.0),
    sobel=dict(type='simclr_mm.RandomSobel'),
    noise=dict(type='simclr_mm.RandomGaussianNoise'),
    blur=dict(type='simclr_mm.RandomGaussianBlur', prob=1.0),
    rotate=dict(type='simclr_mm.RandomRotation'),
)

STRENGTHS = {'1/8': 1 / 8, '1/4': 1 / 4, '1/2': 1 / 2, '1': 1.0, '1+blur': 1.0}

# Head and argument of each objective, and the values of the argument in Sec. B.10.
TEMPERATURES = tuple(f'tau={number}' for number in (0.1, 0.2, 0.5, 1))
MARGINS = tuple(f'm={number}' for number in (0, 0.4, 0.8, 1.6))
OBJECTIVES: dict[str, tuple[str, Options, tuple[str, ...]]] = {
    'nt-xent': ('NTXentHead', {}, TEMPERATURES),
    'nt-logistic': ('NTLogisticHead', {}, TEMPERATURES),
    'nt-logistic-semi-hard': ('NTLogisticHead', dict(semi_hard=True), TEMPERATURES),
    'triplet': ('MarginTripletHead', {}, MARGINS),
    'triplet-semi-hard': ('MarginTripletHead', dict(semi_hard=True), MARGINS[1:]),
}


def augmentations(cfg: Config, firsts: Sequence[str], seconds: Sequence[str]) -> Iterator[Cell]:
    """One or two transformations of one view. The other view stays unchanged.

    Sec. 3.1: every image is first cropped and resized, because ImageNet's images differ in
    size, and both views start from that crop. Images of one size, which need no loading
    step, are not cropped.
    """
    before, views, after = two_views(cfg)
    if 'blur' in [*firsts, *seconds]:
        _check_blur(min(sizes_of(views)))
    if before:
        before.append(dict(type='simclr_mm.RandomCropAndFlip', size=max(sizes_of(views))))
    whole = dict(num_views=2, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_prob=0.0, augment='worker')
    for first, second in product(firsts, seconds):
        names = [first] if first == second else [first, second]
        studied = [TRANSFORMATIONS[name] for name in names]
        step = dict(views, **whole, transforms=[[], studied])
        yield (first, second), {PIPELINE: [*before, step, *after]}


def color_strength(cfg: Config, strengths: Sequence[str]) -> Iterator[Cell]:
    """Crop, flip and colour of this strength, on both views."""
    before, views, after = two_views(cfg)
    for name in strengths:
        transforms = [{**TRANSFORMATIONS['color'], 'strength': STRENGTHS[name]}]
        if name == '1+blur':
            _check_blur(min(sizes_of(views)))
            transforms.append(dict(type='simclr_mm.RandomGaussianBlur'))
        step = dict(views, transforms=transforms)
        yield (name,), {PIPELINE: [*before, step, *after]}


def head(cfg: Config, kinds: Sequence[str], widths: Sequence[int]) -> Iterator[Cell]:
    """Projection heads in each width. 'none' is one run, whose projections are the features."""
    layers = {'none': 0, 'linear': 1, 'nonlinear': 2}
    for kind in kinds:
        for width in [''] if kind == 'none' else widths:
            options: Options = {'model.neck.num_layers': layers[kind]}
            if width:
                options['model.neck.out_channels'] = width
            yield (kind, width), options


def depth_width(cfg: Config, widths: Sequence[float], depths: Sequence[int]) -> Iterator[Cell]:
    """ResNets of other depths, and with more channels than the config's."""
    _setting(cfg, 'model.backbone.depth')
    kind = cfg.model.backbone.type
    backbone = kind if isinstance(kind, type) else MODELS.get(kind)
    known = getattr(backbone, 'arch_settings', depths)
    for depth in depths:
        if depth not in known:
            some = ', '.join(map(str, known))
            raise UserError(f'--values depth={depth}: {type_name(kind)} has depths {some}')
    for width, depth in product(widths, depths):
        options: Options = {'model.backbone.depth': depth}
        for key in ('stem_channels', 'base_channels'):
            channels = cfg.model.backbone.get(key, 64)  # mmpretrain's default
            options[f'model.backbone.{key}'] = round(channels * width)
        yield (width, depth), options


def batch_epochs(cfg: Config, batches: Sequence[int], epochs: Sequence[int]) -> Iterator[Cell]:
    """Longer training and larger batches, with a learning rate in proportion to the batch."""
    _setting(cfg, 'train_cfg.max_epochs')
    for batch, epoch in product(batches, epochs):
        yield (batch, epoch), {**_batch(cfg, batch, 1), 'train_cfg.max_epochs': epoch}


def temperature(cfg: Config, norms: Sequence[str], temperatures: Sequence[float]) -> Iterator[Cell]:
    """Cosines with temperatures up to 1, dot products with temperatures above 1.

    Cosines are at most 1. Dot products of projections of width 128 after a norm are about 128.
    """
    heads = {'l2-norm': 'NTXentHead', 'no-norm': 'UnnormalizedXentHead'}
    for norm, tau in product(norms, temperatures):
        if (tau <= 1) == (norm == 'l2-norm'):
            yield (norm, tau), _head(heads[norm], temperature=tau)


def objective(cfg: Config, names: Sequence[str], settings: Sequence[str]) -> Iterator[Cell]:
    """Each loss with each value of its temperature or margin.

    The paper tuned these (Sec. B.10). Its Table 4 shows the best of each row.
    """
    for name, setting in product(names, settings):
        kind, extra, allowed = OBJECTIVES[name]
        if setting in allowed:
            argument = 'temperature' if setting.startswith('tau') else 'margin'
            number = float(setting.split('=')[1])
            yield (name, setting), _head(kind, **{argument: number}, **extra)


def lr_scaling(cfg: Config, rules: Sequence[str], batches: Sequence[int]) -> Iterator[Cell]:
    """Learning rates that agree at the config's batch, as the paper's two rules do at 4096."""
    powers = {'linear': 1, 'square-root': 1 / 2}
    for rule, batch in product(rules, batches):
        yield (rule, batch), _batch(cfg, batch, powers[rule])


def two_views(cfg: Config) -> tuple[list[dict], ConfigDict, list[dict]]:
    """TwoViews in the training pipeline, between the steps before and after it."""
    steps = list(cfg.train_dataloader.dataset.get('pipeline', []))
    for place, step in enumerate(steps):
        if type_name(step) == 'TwoViews':
            return steps[:place], step, steps[place + 1 :]
    raise UserError(f'{PIPELINE} has no simclr_mm.TwoViews: take a pretraining config')


def sizes_of(views: ConfigDict) -> Sequence[int]:
    """The sizes of TwoViews, one for each stage of training."""
    return views.size if isinstance(views.size, (list, tuple)) else [views.size]


def _check_blur(size: int) -> None:
    if size < 20:
        raise UserError(
            f'blur has no effect on views of {size} pixels, because its '
            'kernel is a tenth of that: leave it out of --values'
        )


def _head(kind: str, **arguments: object) -> Options:
    return {'model.head': dict(_delete_=True, type=f'simclr_mm.{kind}', **arguments)}


def _batch(cfg: Config, batch: int, power: float) -> Options:
    """A batch, and its learning rate by a power law from the config's."""
    base = _setting(cfg, 'auto_scale_lr.base_batch_size')
    rate = _setting(cfg, 'optim_wrapper.optimizer.lr') * (batch / base) ** power
    return {
        'train_dataloader.batch_size': batch,
        'optim_wrapper.optimizer.lr': rate,
        'auto_scale_lr.base_batch_size': batch,
    }


def _setting(cfg: Config, key: str) -> float:
    """A number of the config that a study starts from. A UserError if it is not set."""
    value = cfg
    for part in key.split('.'):
        value = (value or {}).get(part)
    if value is None:
        raise UserError(
            f'this study varies {key}, but {cfg.filename} does not set it: take a config that does'
        )
    return value
