# Pixels in [0, 1], as the reference code feeds them.
data_preprocessor = dict(
    type='simclr_mm.ViewsPreprocessor', mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True
)

train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # in memory: one call makes a batch
    persistent_workers=False,
    drop_last=True,
    collate_fn=dict(type='simclr_mm.collate'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        type='simclr_mm.Digits',
        split='train',
        with_label=False,
        batched=True,
        pipeline=[
            # No flips: a mirrored digit is another sign. Grey pictures have no colours,
            # only brightness and contrast.
            dict(
                type='simclr_mm.TwoViews',
                size=16,
                scale=(0.4, 1.0),
                flip_prob=0.0,
                augment='auto',  # on the GPU if there is one
                transforms=[
                    dict(type='simclr_mm.RandomRotation', degrees=15.0, prob=0.8),
                    dict(
                        type='simclr_mm.ColorJitter',
                        brightness=0.4,
                        contrast=0.4,
                        saturation=0.0,
                        hue=0.0,
                        prob=0.8,
                    ),
                    dict(type='simclr_mm.RandomGaussianNoise', std=(0.0, 20.0), prob=0.5),
                ],
            ),
            dict(type='PackInputs'),
        ],
    ),
)

val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='simclr_mm.GalleryAndQuery',
        gallery=dict(type='simclr_mm.Digits', split='train'),
        query=dict(type='simclr_mm.Digits', split='test'),
        pipeline=[dict(type='Resize', scale=16), dict(type='PackInputs')],
    ),
)
val_evaluator = dict(type='simclr_mm.KNNAccuracy', k=20)
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
