#!/usr/bin/env bash
# The contract of every store and the arrow on a server that CI does not start: `tests/by_hand/run.sh ceph` or `… swift` (Debian 12, two minutes
# each); Swift takes no conditional write, so it is only read from there. What came of it last stands in docs/reference/stores.md, with its date.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
server=$1 work=$(mktemp -d)
tests=(tests/test_store_contract.py tests/test_ranges.py tests/test_arrow.py tests/by_hand)
case $server in
  ceph) export LAB_KEY=lab-key LAB_SECRET=lab-secret-0123456789; start=("$here/start-ceph.sh" "$work" "$LAB_KEY" "$LAB_SECRET") ;;
  swift) export LAB_KEY=test:tester LAB_SECRET=lab-secret-0123456789; start=("$here/start-swift.sh" "$work" "$LAB_SECRET"); tests=(tests/by_hand) ;;
  *) echo "usage: $0 ceph | swift" >&2; exit 64 ;;
esac
coproc SERVER { exec "${start[@]}"; }
trap 'kill "$SERVER_PID" 2>/dev/null && wait "$SERVER_PID" 2>/dev/null || true; rm -rf "$work"' EXIT
read -r endpoint <&"${SERVER[0]}"
export LAB_SERVER=$server LAB_ENDPOINT=$endpoint
cd "$here/../.."
python -m pytest -q "${tests[@]}" -k "$server" "${@:2}"
