#!/usr/bin/env bash
# The student that `vfss segment` uses when nothing else is given.
#
#   examples/packaged-student/run.sh WORKSPACE      # resumable: run it again after an interruption
#
# Simulated patients only. Distilled from the three packaged small teachers on some of them, then
# trained in three parts on the labels of others alone. Each part has patients of its own and starts
# where the one before ended; what a part is for stands in its .yaml.
# evaluate.py, beside this file, measures the student on patients that are in none of them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
before=

# Name, patients, seed, labelled frames (every so many), share of validation, teachers.
part() {
  mkdir -p "$root/$1/weights"
  cd "$root/$1"
  [ -f vfss.yaml ] || echo "splits: {val: $5, test: 0}" > vfss.yaml
  vfss simulate films --patients "$2" --seed "$3" --label-every "$4" \
    --size 256 --fps 6 --frames 20 --workers 2
  vfss ingest films --workers 2 --quiet
  if [ -n "$before" ]; then cp "$before" weights/from.safetensors; fi
  if [ ! -d runs/vfss12-small ]; then
    vfss distill --teachers "$6" --config "$here/$1.yaml" --name vfss12-small
  elif [ ! -f runs/vfss12-small/student.safetensors ]; then
    vfss distill --resume --name vfss12-small
  fi
  start=$before before=$PWD/runs/vfss12-small/student.safetensors
}

# The student of the last part becomes the mean of itself and of the one it started from.
average() { python "$here/average.py" runs/vfss12-small "$start"; }

part first 640 20000 3 0.05 small-sam,small-dino,small-clip
part last 900 60000 2 0.04 none
part bolus 1500 80000 2 0.03 none
part lag 1500 120000 2 0.03 none
average
python "$here/certainty.py" ../certainty runs/vfss12-small
vfss export vfss12-small --force
