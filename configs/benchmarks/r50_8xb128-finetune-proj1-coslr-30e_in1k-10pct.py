_base_ = 'r50_8xb128-finetune-proj1-coslr-60e_in1k-1pct.py'
train_dataloader = dict(dataset=dict(list_file='data/imagenet/10percent.txt'))
train_cfg = dict(max_epochs=30)  # Sec. 3.1
