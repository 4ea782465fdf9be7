#!/usr/bin/env bash
# Test on several processes of this machine, or of NNODES machines.
# Usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [flags of tools/test.py]
# There is one process a GPU. Without GPUs the processes run on CPUs and talk over gloo.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,4s/^# //p' "$0"; exit 2; fi
config=$1
checkpoint=$2
processes=$3
here=$(cd "$(dirname "$0")" && pwd)

export PYTHONPATH="$here/..:${PYTHONPATH:-}"
exec "${PYTHON:-python}" -c '
import sys
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.run import main
try:
    main()
except SignalException as stop:  # Ctrl-C
    sys.exit(128 + stop.sigval)
' \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$here/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
