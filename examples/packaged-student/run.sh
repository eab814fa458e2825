#!/usr/bin/env bash
# The student that `vfss segment` uses when nothing else is given.
#
#   examples/packaged-student/run.sh WORKSPACE      # resumable: run it again after an interruption
#
# Simulated patients only, distilled from the three packaged small teachers. evaluate.py, beside this
# file, measures it on patients that are not in here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
[ -f vfss.yaml ] || echo 'splits: {val: 0.05, test: 0}' > vfss.yaml
vfss simulate films --patients 640 --seed 20000 --size 256 --fps 6 --frames 20 --label-every 3 --workers 2
vfss ingest films --quiet
for part in first last; do
  name=$([ $part = first ] && echo first || echo vfss12-small)
  if [ -f "runs/$name/student.safetensors" ]; then
    continue
  elif [ -d "runs/$name" ]; then
    vfss distill --resume --name "$name"
  else
    vfss distill --teachers small-sam,small-dino,small-clip --config "$here/$part.yaml" --name "$name"
  fi
done
python "$here/certainty.py" certainty runs/vfss12-small
vfss export vfss12-small --force
