#!/usr/bin/env bash
# Test on a Slurm cluster, one process per GPU:
#   GPUS=8 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of test.py]
# CHECKPOINT may be `none` where nothing in the model learns.
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
. "$(dirname "$0")/launch.sh"

require_arguments 4 "$#"
files=("$3")
[ "$4" = none ] || files+=("$4")
run_slurm test.py "$1" "$2" "${files[@]}" --launcher slurm "${@:5}"
