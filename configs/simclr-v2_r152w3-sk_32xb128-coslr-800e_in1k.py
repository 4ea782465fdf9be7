_base_ = 'simclr-v2_r50_16xb256-coslr-800e_in1k.py'
# For GPUs of 80 GB. Computed: activations and weights of 43 GB a GPU, 97 GB without with_cp.
model = dict(backbone=dict(depth=152, width=3, selective_kernels=True, with_cp=True))
train_dataloader = dict(batch_size=128)
