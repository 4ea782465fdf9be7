_base_ = 'simclr_r18_8xb256-coslr-64k_in1k.py'
# The first trials: BN is local, and LARS also adapts and decays BN and biases.
sync_bn = None
optim_wrapper = dict(optimizer=dict(include_1d=True))
model = dict(backbone=dict(depth=50))
train_cfg = dict(max_iters=128_000)
