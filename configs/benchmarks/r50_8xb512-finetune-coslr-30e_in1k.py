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

# Sec. B.2 fine-tunes on all labels and gives no length. The authors take 30 epochs for
# all of ImageNet in SimCLRv2 (arXiv:2006.10029).
train_cfg = dict(max_epochs=30)
