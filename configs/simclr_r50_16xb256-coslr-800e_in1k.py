_base_ = 'simclr_r50_16xb256-coslr-200e_in1k.py'
train_cfg = dict(max_epochs=800)
