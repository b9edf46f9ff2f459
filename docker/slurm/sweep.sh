#!/usr/bin/env bash
# A sweep on Slurm nodes, over `ray symmetric-run`; goes on by itself where the time limit or a preemption cut it off.
#   sbatch docker/slurm/sweep.sh SPEC [options of `lmoe-tune search`]
#SBATCH --job-name=lmoe-tune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=08:00:00
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
set -uo pipefail

if (($# == 0)); then
    echo "usage: sbatch sweep.sh SPEC [options of lmoe-tune search]" >&2
    exit 2
fi
home=${LMOE_TUNE_HOME:?set it to a folder that all nodes share}
export LMOE_TUNE_HOME=$home

# Ports of this job's own, so that another job on the same node does not meet them: a hundred, by the job's number.
base=$((20000 + SLURM_JOB_ID % 400 * 100))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk '{ print $1; exit }')
address=${address:-$head}:$base

# Whoever joins needs the token; it lives as long as the job, and in its environment only.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}

# `ray symmetric-run` may end with 0 although Ray did not start: only what the driver itself leaves here counts.
code_file=$home/.slurm-$SLURM_JOB_ID.code
rm -f "$code_file"
driver='trap : TERM INT; lmoe-tune search "$@" & pid=$!
wait $pid; code=$?
while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done # a signal ends the wait, not the search
wait $pid 2>/dev/null; again=$?; ((again == 127)) || code=$again
echo $code > "$0.part" && mv "$0.part" "$0"'

requeue=
stop() {
    echo "sweep.sh: the time limit is near; the sweep stops and goes on in the requeued job" >&2
    requeue=1
    scancel --signal=TERM "$SLURM_JOB_ID.0" 2>/dev/null || kill -TERM "$step" 2>/dev/null
}
trap stop USR1

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 ray symmetric-run \
    --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --object-store-memory=200000000 \
    --ray-client-server-port=$((base + 1)) --node-manager-port=$((base + 2)) --object-manager-port=$((base + 3)) \
    --min-worker-port=$((base + 10)) --max-worker-port=$((base + 99)) \
    -- bash -c "$driver" "$code_file" "$@" --address "$address" --wait-for-lock 10m &
step=$!
while kill -0 "$step" 2>/dev/null; do
    wait "$step" # a signal ends the wait, not the step
done

code=$(cat "$code_file" 2>/dev/null)
rm -f "$code_file"
if [[ -z $code ]]; then
    if [[ -n $requeue ]]; then
        code=130 # it was stopped before it could say so
    else
        echo "sweep.sh: the driver never ended by itself; see what Ray and Slurm say above" >&2
        exit 1
    fi
fi
if [[ $code == 130 && -n $requeue ]]; then
    scontrol requeue "$SLURM_JOB_ID" || echo "sweep.sh: not requeued; submit it again and it goes on" >&2
fi
exit "$code"
