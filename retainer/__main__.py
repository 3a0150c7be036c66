"""`python -m retainer`, and what the command `retainer` runs."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line in UTF-8, whatever the locale: names of files, policies and what is
    shown are text, not what a locale can spell."""
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8") and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", "-m", "retainer", *sys.argv[1:]])
    from retainer.cli import main as run

    run()


if __name__ == "__main__":
    main()
