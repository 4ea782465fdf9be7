data_preprocessor = dict(
    type='simclr_mm.ViewsPreprocessor', mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True
)

train_dataloader = dict(
    batch_size=256,
    num_workers=0,  # in memory: one call makes a batch
    persistent_workers=False,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='simclr_mm.collate'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        type='simclr_mm.STL10',
        data_root='data/stl10',
        split='train+unlabeled',
        with_label=False,
        batched=True,
        pipeline=[
            dict(
                type='simclr_mm.TwoViews',
                size=96,
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
    batch_size=500,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='simclr_mm.GalleryAndQuery',
        gallery=dict(type='simclr_mm.STL10', data_root='data/stl10', split='train'),
        query=dict(type='simclr_mm.STL10', data_root='data/stl10', split='test'),
        pipeline=[dict(type='Resize', scale=96), dict(type='PackInputs')],
    ),
)
val_evaluator = dict(type='simclr_mm.KNNAccuracy')
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
