_base_ = 'r18_1xb64-finetune-coslr-60e_cifar10-1pct.py'
model = dict(backbone=dict(stem_channels=16, base_channels=16), head=dict(in_channels=128))
