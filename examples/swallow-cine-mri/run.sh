#!/usr/bin/env bash
# Eighteen real patients swallowing, cine-MRI, one labelled structure: the Dice of test patients.
#
#   examples/swallow-cine-mri/run.sh DATA WORKSPACE
#
# DATA holds subjNN/images/*.jpg and subjNN/masks/*.jpg (SheenZhang721/SwallowingFunctionAnalysis,
# MIT). The split its authors publish puts frames of one patient on both sides; ours is by patient.
# The masks are JPEG: their values are 0-14 and 240-255, and ingest cuts at one half.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$1 workspace=$2
mkdir -p "$workspace"
vfss ingest "$data" --tasks "$here/tongue.yaml" --fps 10 -w "$workspace"
vfss distill --teachers small-sam,small-dino,small-clip --config "$here/settings.yaml" -w "$workspace"
vfss segment --split test -w "$workspace" --force
vfss report --split test -w "$workspace"
