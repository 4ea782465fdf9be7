_base_ = [
    '../_base_/datasets/in1k_linear.py',
    '../_base_/schedules/finetune_coslr_60e.py',
    '../_base_/default_runtime.py',
]

# 128 pixels instead of 224. Evaluation resizes the shorter side in proportion.
_base_.train_dataloader.dataset.pipeline[1].scale = 128
_base_.val_dataloader.batch_size = 256
_base_.val_dataloader.dataset.pipeline[1].scale = 146
_base_.val_dataloader.dataset.pipeline[2].crop_size = 128
test_dataloader = _base_.val_dataloader

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # The reference code's zero_init_logits_layer.
        init_cfg=dict(type='Constant', layer='Linear', val=0.0),
    ),
)

train_dataloader = dict(
    batch_size=64,
    drop_last=True,
    dataset=dict(
        _delete_=True,
        type='simclr_mm.LabelSubset',
        list_file='data/imagenet/10percent.txt',
        dataset=_base_.train_dataloader.dataset,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.05 * 64 / 256))  # as in Sec. B.5
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=64)
