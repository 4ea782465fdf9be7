_base_ = 'r18_1xb256-linear-adam-100e_cifar10.py'
model = dict(backbone=dict(depth=50), head=dict(in_channels=2048))
