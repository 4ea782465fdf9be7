_base_ = 'simclr-v2_r50_16xb256-coslr-800e_in1k.py'
# Computed: activations and weights of 25 GB a GPU, twice as much without with_cp.
model = dict(backbone=dict(width=2, with_cp=True))
