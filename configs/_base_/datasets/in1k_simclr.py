data_preprocessor = dict(
    type='simclr_mm.ViewsPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='train',
        with_label=False,
        pipeline=[
            dict(type='simclr_mm.LoadImageFromFile'),
            dict(
                type='simclr_mm.TwoViews',
                size=224,
                augment='auto',  # on the GPU if there is one
                transforms=[
                    dict(type='simclr_mm.ColorDistortion', strength=1.0),
                    dict(type='simclr_mm.RandomGaussianBlur'),
                ],
            ),
            dict(type='PackInputs'),
        ],
    ),
)

val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='simclr_mm.GalleryAndQuery',
        gallery=dict(type='ImageNet', data_root='data/imagenet', split='train'),
        gallery_per_class=100,
        query=dict(type='ImageNet', data_root='data/imagenet', split='val'),
        pipeline=[
            dict(type='simclr_mm.LoadImageFromFile'),
            dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
)
val_evaluator = dict(type='simclr_mm.KNNAccuracy')
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
