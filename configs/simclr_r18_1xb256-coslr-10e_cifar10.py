_base_ = 'simclr_r18-w16_1xb256-coslr-10e_cifar10.py'

# The full width: about nine times the time of the thin network, on two CPU cores in bf16.
model = dict(backbone=dict(stem_channels=64, base_channels=64))
