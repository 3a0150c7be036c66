#!/usr/bin/env bash
# A scheduler here, and a worker on each host, reached by SSH, for as long as one apply takes. Start it in the project's folder.
#   HOSTS="copy-1 copy-2" fleet.sh today.plan [more words for `retainer apply`]
# On every host: the same checkout under $PROJECT, retainer of the same version with its extra `cluster`, a role of its
# own and HMS_ACCESS_KEY with HMS_SECRET in what SSH logs in with, and the certificates that ~/.config/dask/tls.yaml
# names (docs/how-to/many-machines.md).
set -euo pipefail
plan=$1
shift
here=${SCHEDULER_HOST:-$(hostname -f)} port=${PORT:-8786} project=${PROJECT:-$PWD}
started=()
finish() { kill "${started[@]}" 2>/dev/null || true; }
trap finish EXIT

setsid dask scheduler --host "tls://$here" --protocol tls --port "$port" --no-dashboard &
started+=($!)
for host in $HOSTS; do
  # -tt: the worker ends with this connection.
  setsid ssh -tt -o BatchMode=yes "$host" "cd '$project' && exec dask worker tls://$here:$port --nthreads 1 --no-dashboard --local-directory /var/tmp/dask" &
  started+=($!)
done
# Shares are cut, and calls shared out, by how many workers there are when the run begins.
python3 -c 'import sys; from distributed import Client; Client(sys.argv[1]).wait_for_workers(int(sys.argv[2]), timeout=60)' \
  "tls://$here:$port" "$(wc -w <<< "$HOSTS")" || echo "not every host came within a minute; the run begins with those that did" >&2
retainer apply "$plan" --on "tls://$here:$port" "$@"
