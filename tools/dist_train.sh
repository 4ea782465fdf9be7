#!/usr/bin/env bash
# Train on several processes of this machine, or of NNODES machines.
# Usage: tools/dist_train.sh CONFIG PROCESSES [flags of tools/train.py]
# There is one process a GPU. Without GPUs the processes run on CPUs and talk over gloo.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,4s/^# //p' "$0"; exit 2; fi
config=$1
processes=$2
here=$(cd "$(dirname "$0")" && pwd)
if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "$(basename "$0"): error: PROCESSES is '$processes': give a whole number from 1" >&2
    exit 2
fi

export PYTHONPATH="$here/..:${PYTHONPATH:-}"
exec "${PYTHON:-python}" -c '
import sys
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main
try:
    main()
except SignalException as stop:  # the ranks got it too and have ended
    sys.exit(128 + stop.sigval)
except ChildFailedError as error:  # the ranks have printed their reasons
    rank, failure = error.get_first_failure()
    print(f"rank {rank} ended first, with exit code {failure.exitcode}", file=sys.stderr)
    sys.exit(max(failure.exitcode, 1))
' \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$here/${TOOL:-train.py}" "$config" --launcher pytorch "${@:3}"
