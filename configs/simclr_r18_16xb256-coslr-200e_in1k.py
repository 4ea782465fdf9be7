_base_ = 'simclr_r50_16xb256-coslr-200e_in1k.py'
model = dict(backbone=dict(depth=18))
