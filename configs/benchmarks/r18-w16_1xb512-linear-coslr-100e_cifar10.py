_base_ = 'r18_1xb512-linear-coslr-100e_cifar10.py'
model = dict(backbone=dict(stem_channels=16, base_channels=16), head=dict(in_channels=128))
