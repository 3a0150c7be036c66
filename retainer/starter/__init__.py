"""What `retainer init` writes: the repository's own retainer.yaml and policies/ (a test holds them
equal)."""

from __future__ import annotations

from importlib.resources import files

NAMES = ("retainer.yaml", "policies/recordings.yaml", "policies/holds-and-erasures.yaml")
STARTER = {
    name: files("retainer.starter").joinpath(name).read_text(encoding="utf-8") for name in NAMES
}
