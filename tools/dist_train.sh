#!/usr/bin/env bash
# Train with several processes on this machine, or on several machines:
#   tools/dist_train.sh CONFIG NUM_PROCESSES [flags of tools/train.py]
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 tools/dist_train.sh CONFIG 8
# One process per GPU; without GPUs the processes share the CPUs.
. "$(dirname "$0")/launch.sh"

require_arguments 2 "$#"
run_torchrun train.py "$2" "$1" --launcher pytorch "${@:3}"
