#!/usr/bin/env bash
# Test through Slurm.
# Usage: GPUS=16 GPUS_PER_NODE=8 CPUS_PER_TASK=8 tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [flags of tools/test.py]
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,3s/^# //p' "$0"; exit 2; fi
REQUEUE= TOOL=test.py exec "$(dirname "$0")/slurm_train.sh" "$@"
