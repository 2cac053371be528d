#!/usr/bin/env bash
# Train on several machines of a Slurm cluster, with one task for each GPU:
#
#     sbatch docs/launch/slurm.sh configs/vatlm/base.yaml max_frames=500 parallel=fsdp
#
# Three minutes before its time is over, and when it is preempted, a job gets SIGTERM: the run writes a checkpoint and ends well. The array
# is a chain of jobs, one after another, each of which goes on where the one before stopped; when the run is done, the rest end at once.
# Change the numbers below, or give others to sbatch. The output folder has to be one that all machines see.
#SBATCH --job-name=avtlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --array=1-8%1
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?usage: sbatch docs/launch/slurm.sh CONFIG [KEY=VALUE ...]}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS
export MASTER_ADDR MASTER_PORT WORLD_SIZE

# shellcheck disable=SC2016 # every task looks up its own numbers
exec srun --kill-on-bad-exit=1 bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$0" -m avtlm.cli train "$@"' \
    "${PYTHON:-python}" "$config" "accumulate=$SLURM_NTASKS" "${@:2}"
