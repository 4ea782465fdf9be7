# Images of any bands and depth. `simclr-mm band-statistics DIR --base CONFIG` writes a config with
# the mean, the std and the number of bands of your files; here 12 bands from 0 to 65,535.
data_preprocessor = dict(
    type='simclr_mm.ViewsPreprocessor', mean=[32768.0] * 12, std=[16384.0] * 12, to_rgb=False
)

train_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='simclr_mm.ResumableSampler'),
    dataset=dict(
        type='simclr_mm.ImageFolder',
        data_root='data/bands/train',
        with_label=False,
        pipeline=[
            dict(type='simclr_mm.LoadBands'),
            dict(
                type='simclr_mm.TwoViews',
                size=128,
                scale=(0.2, 1.0),  # of the area of an image
                augment='auto',  # on the GPU if there is one
                transforms=[
                    dict(type='simclr_mm.BandJitter', std=[16384.0] * 12),
                    dict(type='simclr_mm.RandomGaussianBlur'),
                ],
            ),
            dict(type='PackInputs'),
        ],
    ),
)

val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='simclr_mm.GalleryAndQuery',
        gallery=dict(type='simclr_mm.ImageFolder', data_root='data/bands/train', with_label=True),
        query=dict(type='simclr_mm.ImageFolder', data_root='data/bands/val', with_label=True),
        pipeline=[
            dict(type='simclr_mm.LoadBands'),
            dict(type='simclr_mm.ResizeEdge', scale=146, edge='short', backend='pillow'),
            dict(type='CenterCrop', crop_size=128),
            dict(type='PackInputs'),
        ],
    ),
)
val_evaluator = dict(type='simclr_mm.KNNAccuracy', k=20)
val_cfg = dict()

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
