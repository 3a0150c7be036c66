"""The least rights that a plan, an apply or a restore needs of each cloud, as that cloud's policies
are written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

from retainer.model.setting import ARCHIVES, OWN_PREFIX, Settings, Store

For = Literal["plan", "apply", "restore"]

READ_BUCKET = (
    "s3:ListBucket",
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetLifecycleConfiguration",
)
READ_OBJECT = ("s3:GetObject", "s3:GetObjectRetention", "s3:GetObjectLegalHold")
WRITE_OBJECT = ("s3:PutObject", "s3:AbortMultipartUpload")
"""Docs: the Service Authorization Reference of Amazon S3. A plan and an
apply delete no version, unless a rule says `versions: all`: a delete names the one it means by
If-Match, which `s3:DeleteObject` alone allows. A restore takes delete markers away, which Amazon
counts as that."""
_GCS_READ = ("storage.buckets.get", "storage.objects.get", "storage.objects.list")
_GCS_WRITE = ("storage.objects.create", "storage.objects.delete", "storage.objects.update")


def aws_policy(
    settings: Settings, purpose: For, versions: Collection[str] = ()
) -> dict[str, Any] | None:
    """An IAM policy for the stores at AWS and at makers that take such policies; None where there
    is none. `versions`: the stores in which a rule removes every version."""
    stores = [store for store in settings.stores if store.scheme == "s3"]
    if not stores:
        return None
    statements: list[dict[str, Any]] = []
    for number, store in enumerate(stores, 1):
        statements += _statements(store, purpose, number, versions=store.name in versions)
    return {"Version": "2012-10-17", "Statement": statements}


def _statements(
    store: Store, purpose: For, number: int, *, versions: bool
) -> Iterator[dict[str, Any]]:
    # a statement's id has letters and digits, and must be the only one of its name
    name = f"{''.join(filter(str.isalnum, store.name)).capitalize()}{number}"
    region = store.region or ""
    partition = "-cn" if region[:3] == "cn-" else "-us-gov" if region[:7] == "us-gov-" else ""
    bucket = f"arn:aws{partition}:s3:::{store.bucket}"
    objects = f"{bucket}/{store.prefix}*"
    own = f"{bucket}/{store.prefix}{OWN_PREFIX}*"
    # Not bound to the prefix: without the right to list, S3 answers 403 and not 404 to whoever asks
    # for an object that is not there, and such a question names no prefix.
    yield {
        "Sid": f"{name}Bucket",
        "Effect": "Allow",
        "Action": list(READ_BUCKET),
        "Resource": [bucket],
    }
    yield {
        "Sid": f"{name}Read",
        "Effect": "Allow",
        "Action": list(READ_OBJECT),
        "Resource": [objects],
    }
    if store.kms_key and store.kms_key.startswith("arn:"):
        yield {
            "Sid": f"{name}Key",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", *(["kms:GenerateDataKey"] if purpose != "plan" else [])],
            "Resource": [store.kms_key],
        }
    # where copies are locked, so is what the store remembers of runs, and a delete of it noticed
    if purpose == "restore" or versions or store.lock:
        yield {
            "Sid": f"{name}Versions",
            "Effect": "Allow",
            "Action": ["s3:ListBucketVersions"],
            "Resource": [bucket],
        }
    if versions:
        yield {
            "Sid": f"{name}EachVersion",
            "Effect": "Allow",
            "Action": ["s3:GetObjectVersion"],
            "Resource": [objects],
        }
    if purpose == "plan":
        yield from _to_read_reports(store, name, partition)
        return
    yield {
        "Sid": f"{name}Write",
        "Effect": "Allow",
        "Action": [
            *WRITE_OBJECT,
            *(["s3:PutObjectRetention"] if store.lock else []),
            *(["s3:PutObjectTagging"] if store.tags else []),
        ],
        # 100ms writes what lies in its upload bucket; retainer only its own record beside it
        "Resource": [own if store.written_by_100ms else objects],
    }
    yield {
        "Sid": f"{name}Delete",
        "Effect": "Allow",
        "Action": ["s3:DeleteObject"],
        "Resource": [objects],
    }
    if purpose == "restore" or versions:
        yield {
            "Sid": f"{name}Removes",
            "Effect": "Allow",
            "Action": ["s3:DeleteObjectVersion"],
            "Resource": [objects],
        }
    if store.storage_class in ARCHIVES:
        yield {
            "Sid": f"{name}Restore",
            "Effect": "Allow",
            "Action": ["s3:RestoreObject"],
            "Resource": [objects],
        }


def _to_read_reports(store: Store, name: str, partition: str) -> Iterator[dict[str, Any]]:
    """Only a plan reads them."""
    if store.reports is None:
        return
    bucket = f"arn:aws{partition}:s3:::{store.reports.bucket}"
    yield {
        "Sid": f"{name}ReportsBucket",
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [bucket],
    }
    yield {
        "Sid": f"{name}Reports",
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": [f"{bucket}/{store.reports.prefix}*"],
    }


def google_roles(settings: Settings, purpose: For) -> dict[str, Any] | None:
    """A custom role for Google Cloud Storage, and the buckets to give it on; None where there is
    no such store."""
    stores = [store for store in settings.stores if store.scheme == "gs"]
    if not stores:
        return None
    locks = any(store.lock for store in stores)
    reports = [store.reports for store in stores if store.reports and purpose == "plan"]
    permissions = [
        *_GCS_READ,
        *(_GCS_WRITE if purpose != "plan" else ()),
        *(["storage.objects.setRetention"] if locks and purpose != "plan" else []),
        *(["storage.objects.restore"] if purpose == "restore" else []),
    ]
    return {
        "role": {
            "title": f"retainer {purpose}",
            "stage": "GA",
            "includedPermissions": sorted(permissions),
        },
        "buckets": sorted({f"gs://{store.bucket}" for store in (*stores, *reports)}),
    }


def rights_text(
    settings: Settings, purpose: For, clouds: Sequence[str] = (), versions: Collection[str] = ()
) -> str:
    """The policies as JSON; that of one cloud alone as the cloud takes it. `versions`: as
    `aws_policy`."""
    found = {
        name: value
        for name, value in (
            ("aws", aws_policy(settings, purpose, versions)),
            ("google", google_roles(settings, purpose)),
        )
        if value is not None and (not clouds or name in clouds)
    }
    told = next(iter(found.values())) if len(found) == 1 and len(clouds) == 1 else found
    return json.dumps(told, indent=2) + "\n"
