_base_ = [
    '../_base_/datasets/in1k_linear.py',
    '../_base_/schedules/finetune_lars_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='simclr_mm.GoogleResNet',
        depth=50,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    # Sec. 2: with few labels from the first layer of the projection head.
    neck=dict(type='simclr_mm.ProjectionNeck', in_channels=2048, num_layers=3, until=1),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=2048,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # The reference code's zero_init_logits_layer.
        init_cfg=dict(type='Constant', layer='Linear', val=0.0),
    ),
)

train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    dataset=dict(
        _delete_=True,
        type='simclr_mm.LabelSubset',
        list_file='data/imagenet/1percent.txt',
        dataset=_base_.train_dataloader.dataset,
    ),
)
