#!/usr/bin/env bash
# Ceph RGW 16.2.15 ends an upload in parts with 200 and an empty `<ETag></ETag>`, where AWS documents the ETag of the object; HEAD tells it. Whoever
# keeps the answer's ETag as the version of what was written keeps nothing, and the next call on the condition of that version cannot hold. boto3
# gives '' in its place. PutObject answers with its ETag as usual.
#
# Seen on 2026-11-28 (Debian 12's packages, unpacked in a folder):
#   PutObject answers '"5d41402abc4b2a76b9719d911017c592"'
#   CompleteMultipartUpload answers '', HEAD then tells '"62109206880d38a4010a98e11243924a-1"'
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'boto3==1.44.8'
coproc SERVER { exec "$here/../tests/by_hand/start-ceph.sh" "$work/ceph" example-key example-secret; }
trap 'kill "$SERVER_PID" 2>/dev/null && wait "$SERVER_PID" 2>/dev/null || true; rm -rf "$work"' EXIT
read -r endpoint <&"${SERVER[0]}"
"$work/venv/bin/python" - "$endpoint" <<'PYTHON'
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

s3 = boto3.client(
    "s3", endpoint_url=sys.argv[1], aws_access_key_id="example-key", aws_secret_access_key="example-secret", region_name="us-east-1",
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, request_checksum_calculation="when_required"),
)
for _ in range(200):
    try:
        s3.create_bucket(Bucket="recordings")
        break
    except BotoCoreError:
        time.sleep(0.3)
put = s3.put_object(Bucket="recordings", Key="short", Body=b"hello")["ETag"]
place = {"Bucket": "recordings", "Key": "long"}
upload = s3.create_multipart_upload(**place)["UploadId"]
part = s3.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"hello")["ETag"]
parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
ended = s3.complete_multipart_upload(**place, UploadId=upload, MultipartUpload=parts).get("ETag")
told = s3.head_object(**place)["ETag"]
print(f"  PutObject answers {put!r}")
print(f"  CompleteMultipartUpload answers {ended!r}, HEAD then tells {told!r}")
assert put and not ended and told.endswith('-1"'), "this has changed"
PYTHON
