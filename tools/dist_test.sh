#!/usr/bin/env bash
# Test with several processes on this machine, or on several machines:
#   tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCESSES [flags of tools/test.py]
#   tools/dist_test.sh CONFIG none NUM_PROCESSES   (nothing in the model learns)
# One process per GPU; without GPUs the processes share the CPUs.
. "$(dirname "$0")/launch.sh"

require_arguments 3 "$#"
files=("$1")
[ "$2" = none ] || files+=("$2")
run_torchrun test.py "$3" "${files[@]}" --launcher pytorch "${@:4}"
