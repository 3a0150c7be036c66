#!/usr/bin/env bash
# One big machine: some workers of one thread each, for as long as one apply takes. Start it in the project's folder.
#   one-machine.sh today.plan 4 [more words for `retainer apply`]
set -euo pipefail
plan=$1 workers=$2
shift 2
port=${PORT:-8786}
scratch=$(mktemp -d)
started=()
finish() { kill "${started[@]}" 2>/dev/null || true; wait; rm -rf "$scratch"; }
trap finish EXIT

# In sessions of their own: Ctrl-C is for the run, which tells the workers.
setsid dask scheduler --host 127.0.0.1 --port "$port" --no-dashboard &
started+=($!)
setsid dask worker "tcp://127.0.0.1:$port" --nworkers "$workers" --nthreads 1 --no-dashboard --local-directory "$scratch" &
started+=($!)
# Shares are cut, and calls shared out, by how many workers there are when the run begins.
python3 -c 'import sys; from distributed import Client; Client(sys.argv[1]).wait_for_workers(int(sys.argv[2]), timeout=60)' \
  "tcp://127.0.0.1:$port" "$workers"
retainer apply "$plan" --on "tcp://127.0.0.1:$port" "$@"
