_base_ = [
    '../_base_/datasets/in1k_linear.py',
    '../_base_/schedules/finetune_coslr_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=50,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
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
    drop_last=True,  # 3 steps an epoch; a fourth would have 520 images
    dataset=dict(
        _delete_=True,
        type='simclr_mm.LabelSubset',
        list_file='data/imagenet/1percent.txt',
        dataset=_base_.train_dataloader.dataset,
    ),
)
