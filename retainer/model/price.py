"""What storage costs: by the lists that clouds publish, or as `prices:` in retainer.yaml says.

All of it is an estimate: regions, discounts, taxes and free tiers differ, and what is not bytes
and requests (replication, tiering, logs) is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GIB = 1 << 30
"""Clouds bill by 2^30 bytes, and call that GB."""
MONTH_DAYS = 30.44
"""A month on average."""


@dataclass(frozen=True, slots=True)
class Price:
    """In US dollars. `storage`: a GB for a month; `put`: 1,000 objects written; `retrieval`: a GB
    read; `egress`: a GB that leaves the cloud. Each object is billed for `least_days` at least."""

    storage: float
    put: float = 0.0
    retrieval: float = 0.0
    egress: float = 0.0
    least_days: int = 0

    def monthly(self, size: float) -> float:
        """Dollars for a month of so many bytes."""
        return self.storage * size / GIB

    def kept(self, size: float, objects: int, days: float) -> float:
        """Dollars for writing so many bytes as objects, and keeping them so long."""
        return (
            self.put * objects / 1000 + self.monthly(size) * max(days, self.least_days) / MONTH_DAYS
        )

    def early(self, size: float, days: float) -> float:
        """Dollars for what is deleted after so many days already."""
        return self.monthly(size) * max(0.0, self.least_days - days) / MONTH_DAYS


STANDARD = "STANDARD"
PRICES_OF = "2026-11"
_AWS_OUT, _GOOGLE_OUT = 0.09, 0.12
PRICES: Mapping[str, Mapping[str, Price]] = MappingProxyType(
    {
        "s3": {
            STANDARD: Price(0.023, 0.005, 0.0, _AWS_OUT),
            "STANDARD_IA": Price(0.0125, 0.01, 0.01, _AWS_OUT, 30),
            "ONEZONE_IA": Price(0.01, 0.01, 0.01, _AWS_OUT, 30),
            "INTELLIGENT_TIERING": Price(0.023, 0.005, 0.0, _AWS_OUT),
            "GLACIER_IR": Price(0.004, 0.02, 0.03, _AWS_OUT, 90),
            "GLACIER": Price(0.0036, 0.03, 0.01, _AWS_OUT, 90),
            "DEEP_ARCHIVE": Price(0.00099, 0.05, 0.02, _AWS_OUT, 180),
            "REDUCED_REDUNDANCY": Price(0.024, 0.005, 0.0, _AWS_OUT),
            "EXPRESS_ONEZONE": Price(0.11, 0.00113, 0.0, _AWS_OUT),
        },
        "gs": {
            STANDARD: Price(0.020, 0.005, 0.0, _GOOGLE_OUT),
            "NEARLINE": Price(0.010, 0.01, 0.01, _GOOGLE_OUT, 30),
            "COLDLINE": Price(0.004, 0.02, 0.02, _GOOGLE_OUT, 90),
            "ARCHIVE": Price(0.0012, 0.05, 0.05, _GOOGLE_OUT, 365),
        },
    }
)
"""By scheme and storage class, as known in PRICES_OF: us-east-1 of AWS (aws.amazon.com/s3/pricing)
and us-east1 of Google (cloud.google.com/storage/pricing). Other regions have other prices in nearly
the same proportions."""
