#!/usr/bin/env bash
# Train through Slurm.
# Usage: GPUS=16 GPUS_PER_NODE=8 CPUS_PER_TASK=8 tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [flags of tools/train.py]
# REQUEUE=1 submits a job that Slurm queues again when its time is over, and that goes on by itself.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,4s/^# //p' "$0"; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8}
if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then echo "GPUS is '$gpus': give a whole number from 1" >&2; exit 2; fi
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

export PYTHONPATH="$here/..:${PYTHONPATH:-}"
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 20000))}  # two jobs may share a machine
flags=(
    -p "$1"
    --job-name="$2"
    --gres="gpu:$gpus_per_node"
    --ntasks="$gpus"
    --ntasks-per-node="$gpus_per_node"
    --cpus-per-task="${CPUS_PER_TASK:-8}"
)
tool=${TOOL:-train.py}
place=$4  # a checkpoint, of slurm_test.sh
if [ "$tool" = train.py ]; then place=--work-dir=$4; fi
command=(python -u "$here/$tool" "$3" "$place" --launcher slurm "${@:5}")
if [ -n "${REQUEUE:-}" ]; then
    for flag in "${@:5}"; do
        case $flag in --resume*) echo "REQUEUE=1 resumes by itself, what is in WORK_DIR: leave $flag out" >&2; exit 2 ;; esac
    done
    # Two minutes before the end Slurm sends SIGUSR2. 75: a checkpoint is saved (docs/clusters.md).
    printf -v resumed '%q ' "${command[@]}" --resume
    exec sbatch "${flags[@]}" --signal=USR2@120 --requeue --open-mode=append ${SRUN_ARGS:-} \
        --wrap="srun --cpus-per-task=${CPUS_PER_TASK:-8} --kill-on-bad-exit=1 $resumed; code=\$?
[ \$code != 75 ] || scontrol requeue \$SLURM_JOB_ID; exit \$code"
fi
exec srun "${flags[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} "${command[@]}"
