_base_ = 'simclr_r18_8xb256-coslr-64k_in1k.py'
train_cfg = dict(max_iters=128_000)
