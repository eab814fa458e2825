#!/usr/bin/env bash
# The student that `vfss segment` uses when nothing else is given.
#
#   examples/packaged-student/run.sh WORKSPACE      # resumable: run it again after an interruption
#
# Simulated patients only. Distilled from the three packaged small teachers on some of them, then
# trained on the labels of others alone, of others again with more weight on the bolus, and of yet
# others with films that remember the frame before.
# evaluate.py, beside this file, measures it on patients that are in none of them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
films="--size 256 --fps 6 --frames 20 --workers 2"

train() { # workspace, teachers
  if [ -f "runs/vfss12-small/student.safetensors" ]; then
    return
  elif [ -d "runs/vfss12-small" ]; then
    vfss distill --resume --name vfss12-small
  else
    vfss distill --teachers "$2" --config "$here/$1.yaml" --name vfss12-small
  fi
}

mkdir -p "$1/first" "$1/last/weights" "$1/bolus/weights" "$1/lag/weights"
cd "$1/first"
[ -f vfss.yaml ] || echo 'splits: {val: 0.05, test: 0}' > vfss.yaml
vfss simulate films --patients 640 --seed 20000 --label-every 3 $films
vfss ingest films --quiet
train first small-sam,small-dino,small-clip

cd ../last
[ -f vfss.yaml ] || echo 'splits: {val: 0.04, test: 0}' > vfss.yaml
vfss simulate films --patients 900 --seed 60000 --label-every 2 $films
vfss ingest films --quiet
cp ../first/runs/vfss12-small/student.safetensors weights/first.safetensors
train last none

cd ../bolus
[ -f vfss.yaml ] || echo 'splits: {val: 0.03, test: 0}' > vfss.yaml
vfss simulate films --patients 1500 --seed 80000 --label-every 2 $films
vfss ingest films --workers 2 --quiet
cp ../last/runs/vfss12-small/student.safetensors weights/last.safetensors
train bolus none

cd ../lag
[ -f vfss.yaml ] || echo 'splits: {val: 0.03, test: 0}' > vfss.yaml
vfss simulate films --patients 1500 --seed 120000 --label-every 2 $films
vfss ingest films --workers 2 --quiet
cp ../bolus/runs/vfss12-small/student.safetensors weights/bolus.safetensors
train lag none
python "$here/average.py" runs/vfss12-small weights/bolus.safetensors
python "$here/certainty.py" ../certainty runs/vfss12-small
vfss export vfss12-small --force
