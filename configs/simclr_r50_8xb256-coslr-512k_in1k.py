_base_ = 'simclr_r18_8xb256-coslr-64k_in1k.py'
model = dict(backbone=dict(depth=50))
train_cfg = dict(max_iters=512_000)
