#!/usr/bin/env bash
# Train on one machine, with one process for each GPU or with PROCESSES of them (also without a GPU):
#
#     bash docs/launch/single_node.sh configs/vatlm/base.yaml max_frames=500
#
# Ctrl-C and SIGTERM make the run write a checkpoint behind its next step and end well; the same command goes on from there.
set -euo pipefail

config=${1:?usage: bash docs/launch/single_node.sh CONFIG [KEY=VALUE ...]}
processes=${PROCESSES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)}
if [ "$processes" -lt 1 ]; then
    echo "single_node.sh: no GPU found; set PROCESSES to the number of processes." >&2
    exit 2
fi

# In a session of its own, so that a signal reaches the processes once: from here, not also from the terminal and from torchrun, which
# would report it as an error.
setsid "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "$processes" \
    -m avtlm.cli train "$config" "accumulate=$processes" "${@:2}" &
launcher=$!
trap 'pkill -TERM -P "$launcher" || true' INT TERM

code=0
wait "$launcher" || code=$?
while kill -0 "$launcher" 2>/dev/null; do # a signal ends the waiting, not the run
    code=0
    wait "$launcher" || code=$?
done
exit "$code"
