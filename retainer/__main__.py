"""`python -m retainer`."""

from __future__ import annotations

from retainer.cli import main

if __name__ == "__main__":
    main()
