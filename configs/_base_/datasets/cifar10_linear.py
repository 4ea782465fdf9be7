# Pixels in [0, 1], as in pretraining.
data_preprocessor = dict(
    num_classes=10, mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True
)

# Sec. B.6: random crop and flip only.
train_dataloader = dict(
    batch_size=512,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        type='simclr_mm.CIFAR10',
        data_root='data/cifar10',
        split='train',
        pipeline=[
            dict(type='RandomResizedCrop', scale=32),
            dict(type='RandomFlip', prob=0.5),
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
        type='simclr_mm.CIFAR10',
        data_root='data/cifar10',
        split='test',
        pipeline=[dict(type='Resize', scale=32), dict(type='PackInputs')],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
