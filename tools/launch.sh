# Shared by the dist_*.sh and slurm_*.sh scripts, which read it with `.`; not run itself.
set -euo pipefail
here=$(dirname "$0")
python=${PYTHON:-python}

# require_arguments MINIMUM COUNT: without enough, print the comment that the script
# begins with, and stop.
require_arguments() {
    if [ "$2" -lt "$1" ]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
        exit 2
    fi
}

# run_torchrun TOOL NUM_PROCESSES ARGUMENTS...
run_torchrun() {
    local tool=$1 processes=$2
    shift 2
    exec "$python" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$processes" \
        "$here/$tool" "$@"
}

# run_slurm TOOL PARTITION JOB_NAME ARGUMENTS...
run_slurm() {
    local tool=$1 partition=$2 job_name=$3
    local gpus=${GPUS:-4}
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    shift 3
    # SRUN_ARGS is meant to be split into words.
    # shellcheck disable=SC2086
    exec srun --partition="$partition" \
        --job-name="$job_name" \
        --gres="gpu:$per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "$python" -u "$here/$tool" "$@"
}
