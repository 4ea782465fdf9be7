_base_ = 'r18-w16_1xb256-selfdistil-coslr-3e_cifar10.py'

# A thin student of a larger network, from random weights.
model = dict(temperature=1.0, backbone=dict(init_cfg=None))  # Sec. 3.1
custom_hooks = []
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-4))
train_cfg = dict(max_epochs=100, val_interval=10)
