_base_ = 'r50_8xb512-finetune-coslr-60e_in1k-1pct.py'
train_dataloader = dict(dataset=dict(list_file='data/imagenet/10percent.txt'))
train_cfg = dict(max_epochs=30)  # Sec. B.5
