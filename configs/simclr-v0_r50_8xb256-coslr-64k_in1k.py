_base_ = 'simclr_r18_8xb256-coslr-64k_in1k.py'
# The first trials: local BN; LARS adapts and decays BN and biases too.
sync_bn = None
optim_wrapper = dict(optimizer=dict(include_1d=True))
model = dict(backbone=dict(depth=50))
