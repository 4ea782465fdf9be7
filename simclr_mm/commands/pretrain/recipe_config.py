"""A recipe as a config that can be read, edited and trained."""

from simclr_mm.files.installed import CONFIGS

from .choices import Recipe, kept_side
from .surroundings import Pictures


def config_text(recipe: Recipe, pictures: Pictures, work_dir: str = '', seed: int = 0) -> str:
    """The recipe as a config that can be read, edited and trained."""
    side, epochs = int(recipe.view.value), int(recipe.epochs.value)
    in_memory = recipe.images.value == 'memory'
    root = str(pictures.root.absolute())
    kind = f"type='simclr_mm.{'InMemoryFolder' if in_memory else 'ImageFolder'}'"
    size = f', size={kept_side(side)}' if in_memory else ''
    in_one_array = f'\n        size={kept_side(side)},\n        batched=True,' if in_memory else ''
    if not recipe.colours.value:
        colours = (
            "dict(type='simclr_mm.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.0, "
            'hue=0.0, prob=0.8)'
        )
    else:
        strength = 0.5 if side <= 32 else 1.0
        colours = f"dict(type='simclr_mm.ColorDistortion', strength={strength})"
    blur = "\n                    dict(type='simclr_mm.RandomGaussianBlur')," if side >= 96 else ''
    load = '' if in_memory else "\n            dict(type='simclr_mm.LoadImageFromFile'),"
    validation = (
        'val_dataloader = test_dataloader\nval_evaluator = test_evaluator\nval_cfg = dict()'
    )
    if not recipe.validated:  # measuring does not replace an image as training does
        validation = 'val_dataloader = val_evaluator = val_cfg = None'
    warm_up = max(1, epochs // 10)
    reasons = '\n'.join(f'# {line}' for line in recipe.lines())
    workers = int(recipe.workers.value)
    return f"""{reasons}
_base_ = {str(CONFIGS / '_base_' / 'default_runtime.py')!r}

data_preprocessor = dict(  # pixels in [0, 1]
    type='simclr_mm.ViewsPreprocessor', mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True
)
model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict({recipe.backbone.value}),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.2),  # short runs learn faster than at 0.1
)

train_dataloader = dict(
    batch_size={recipe.batch.value},
    num_workers={workers},
    persistent_workers={workers > 0},
    drop_last=True,
    collate_fn=dict(type='{'simclr_mm.collate' if in_memory else 'default_collate'}'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        {kind},
        data_root={root!r},{in_one_array}
        pipeline=[{load}
            dict(
                type='simclr_mm.TwoViews',
                size={side},
                scale=(0.2, 1.0),  # of the area of an image
                flip_prob=0.5,  # 0.0 if a mirrored image means something else, as text does
                augment='auto',
                transforms=[
                    {colours},{blur}
                ],
            ),
            dict(type='PackInputs'),
        ],
    ),
)

{_measuring(recipe, pictures, f'{kind}{size}', load)}
test_cfg = dict()
{validation}

optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-6),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end={warm_up}, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin={warm_up}, convert_to_iter_based=True),
]
train_cfg = dict(
    type='simclr_mm.EpochBasedTrainLoop', max_epochs={epochs}, val_interval={max(1, epochs // 3)}
)
auto_scale_lr = dict(base_batch_size={recipe.batch.value})
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval={max(1, epochs // 10)}, max_keep_ckpts=1),
)
randomness = dict(seed={seed})
work_dir = {work_dir!r}
"""


def _measuring(recipe: Recipe, pictures: Pictures, kind: str, load: str) -> str:
    """test_dataloader and test_evaluator: kNN with labels by folder, else without labels."""
    side = int(recipe.view.value)
    resize = f"dict(type='ResizeEdge', scale={side}, edge='short', backend='pillow')"
    pipeline = f"""pipeline=[{load}
            {resize},
            dict(type='CenterCrop', crop_size={side}),
            dict(type='PackInputs'),
        ],"""
    root = str(pictures.root.absolute())
    if not pictures.classes:
        dataset = f"""{kind},
        data_root={root!r},
        {pipeline}"""
        evaluator = "test_evaluator = dict(type='simclr_mm.LabelFreeMetrics')"
    else:
        inner = f'dict({kind}, data_root={{!r}}, with_label=True)'
        if pictures.held_out is not None:
            gallery = inner.format(root)
            queries = inner.format(str(pictures.held_out.absolute()))
        else:  # a fifth of each class asks the rest; labels never train
            part = f"type='simclr_mm.LabelSubset', share=0.8, dataset={inner.format(root)}"
            gallery, queries = f'dict({part})', f'dict({part}, rest=True)'
        dataset = f"""type='simclr_mm.GalleryAndQuery',
        gallery={gallery},
        query={queries},
        {pipeline}"""
        neighbours = min(20, max(1, min(pictures.classes.values()) * 4 // 5))
        evaluator = f"test_evaluator = dict(type='simclr_mm.KNNAccuracy', k={neighbours})"
    workers = int(recipe.workers.value)
    return f"""test_dataloader = dict(
    batch_size=100,
    num_workers={workers},
    persistent_workers={workers > 0},
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        {dataset}
    ),
)
{evaluator}"""
