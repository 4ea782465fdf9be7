_base_ = [
    '_base_/datasets/in1k_simclr.py',
    '_base_/schedules/lars_coslr_800e_v2.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='simclr_mm.GoogleResNet', depth=50),
    # Sec. 2: three layers, the first two as wide as the features. As in the reference code the
    # last norm has no shift.
    neck=dict(
        type='simclr_mm.ProjectionNeck',
        num_layers=3,
        out_channels=128,
        last_bias=False,
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.1),
)
