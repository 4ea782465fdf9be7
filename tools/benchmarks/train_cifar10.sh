#!/usr/bin/env bash
# Pretrain on CIFAR-10, then evaluate by kNN, a linear probe and a few labels, without a
# network. Print the seconds of an epoch and of the whole.
#
#   tools/benchmarks/train_cifar10.sh DATA WORK_DIR [CONFIG [KEY=VALUE ...]]
#
# DATA is CIFAR-10 as its archive unpacks, or as class folders in train/ and test/.
# CONFIG is the 100-epoch recipe of ResNet-18 by default; KEY=VALUE as in --cfg-options.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
data=$1 work=$2
config=${3:-$root/configs/simclr_r18_1xb512-coslr-100e_cifar10.py}
options=("train_dataloader.dataset.data_root=$data")
for loader in val_dataloader test_dataloader; do
  options+=("$loader.dataset.gallery.data_root=$data" "$loader.dataset.query.data_root=$data")
done
options+=("${@:4}")
python=${PYTHON:-python}
mkdir -p "$work"

start=$SECONDS
"$python" "$root/tools/train.py" "$config" --work-dir "$work" \
  --cfg-options "${options[@]}" 2>&1 | tee "$work/train.log"
trained=$((SECONDS - start))
"$python" "$root/tools/evaluate_features.py" "$config" "$(cat "$work/last_checkpoint")" \
  --sweep --work-dir "$work" --cfg-options "${options[@]}" 2>&1 | tee "$work/evaluation.log"
epochs=$(grep -o '"epoch": [0-9]*' "$work"/*/vis_data/scalars.json | tail -n 1 | grep -o '[0-9]*$')
echo "Training, validations included: $trained s, $((1000 * trained / epochs)) ms an epoch \
of $epochs. With the evaluation: $((SECONDS - start)) s." | tee -a "$work/evaluation.log"
