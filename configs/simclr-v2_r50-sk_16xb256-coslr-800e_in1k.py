_base_ = 'simclr-v2_r50_16xb256-coslr-800e_in1k.py'
model = dict(backbone=dict(selective_kernels=True))
