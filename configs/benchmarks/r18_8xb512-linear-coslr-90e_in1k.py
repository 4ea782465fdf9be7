_base_ = 'r50_8xb512-linear-coslr-90e_in1k.py'
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
