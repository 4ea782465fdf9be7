_base_ = 'r18_1xb256-linear-adam-100e_in1k-128px.py'
model = dict(backbone=dict(depth=50), head=dict(in_channels=2048))
