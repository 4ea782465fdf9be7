default_scope = 'mmpretrain'
runner_type = 'simclr_mm.Runner'

default_hooks = dict(
    runtime_info=dict(type='simclr_mm.RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='simclr_mm.CheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    unreadable=dict(type='simclr_mm.UnreadableImageHook', max_share=0.01),
    non_finite=dict(type='simclr_mm.NonFiniteGuardHook'),
    learning_watch=dict(type='simclr_mm.LearningWatchHook'),
    data_wait=dict(type='simclr_mm.DataWaitHook'),
    free_cores=dict(type='simclr_mm.FreeCoresHook'),  # on a CPU
    progress=dict(type='simclr_mm.ProgressBarHook'),  # on a terminal
    preemption=dict(type='simclr_mm.PreemptionHook'),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# One BN over the batch of all ranks in distributed training on GPUs (Sec. 2.2).
sync_bn = 'torch'

visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
