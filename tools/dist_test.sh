#!/usr/bin/env bash
# Test with several processes on this machine, or on several machines:
#   tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCESSES [flags of tools/test.py]
#   tools/dist_test.sh CONFIG none NUM_PROCESSES   (nothing in the model learns)
# One process per GPU; without GPUs the processes share the CPUs.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
arguments=("$1")
if [ "$2" != none ]; then
    arguments+=("$2")
fi
processes=$3
shift 3

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "${arguments[@]}" --launcher pytorch "$@"
