#!/usr/bin/env bash
# Test through Slurm.
# Usage: GPUS=16 GPUS_PER_NODE=8 CPUS_PER_TASK=8 tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [flags of tools/test.py]
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,3s/^# //p' "$0"; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8}
if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then echo "GPUS is '$gpus': give a whole number from 1" >&2; exit 2; fi
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 20000))}  # two jobs may share a machine
PYTHONPATH="$here/..:${PYTHONPATH:-}" \
srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-8}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$here/test.py" "$3" "$4" --launcher slurm "${@:5}"
