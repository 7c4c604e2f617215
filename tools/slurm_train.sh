#!/usr/bin/env bash
# Train on a Slurm cluster, one process per GPU:
#   GPUS=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
. "$(dirname "$0")/launch.sh"

require_arguments 3 "$#"
run_slurm train.py "$1" "$2" "$3" --launcher slurm "${@:4}"
