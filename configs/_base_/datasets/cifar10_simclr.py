# Pixels in [0, 1], as the reference code feeds them.
data_preprocessor = dict(
    type='simclr_mm.ViewsPreprocessor', mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True
)

train_dataloader = dict(
    batch_size=512,
    num_workers=0,  # in memory: one call makes a batch
    persistent_workers=False,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='simclr_mm.collate'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        type='simclr_mm.CIFAR10',
        data_root='data/cifar10',
        split='train',
        with_label=False,
        batched=True,
        pipeline=[
            # Sec. B.9: no blur at 32 px, colour strength 0.5.
            dict(
                type='simclr_mm.TwoViews',
                size=32,
                augment='auto',  # on the GPU if there is one
                transforms=[dict(type='simclr_mm.ColorDistortion', strength=0.5)],
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
        gallery=dict(type='simclr_mm.CIFAR10', data_root='data/cifar10', split='train'),
        query=dict(type='simclr_mm.CIFAR10', data_root='data/cifar10', split='test'),
        pipeline=[dict(type='Resize', scale=32), dict(type='PackInputs')],
    ),
)
val_evaluator = dict(type='simclr_mm.KNNAccuracy')
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
