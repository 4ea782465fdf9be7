#!/usr/bin/env bash
# Test on several processes of this machine, or of NNODES machines.
# Usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [flags of tools/test.py]
# There is one process a GPU. Without GPUs the processes run on CPUs and talk over gloo.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,4s/^# //p' "$0"; exit 2; fi
TOOL=test.py exec "$(dirname "$0")/dist_train.sh" "$1" "$3" "$2" "${@:4}"
