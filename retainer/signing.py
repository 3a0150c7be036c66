"""Signatures with SSH keys, as OpenSSH makes and checks them (`ssh-keygen -Y`, its PROTOCOL.sshsig,
and `allowed_signers` in ssh-keygen(1))."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from retainer.errors import RetainerError

NAMESPACE = "retainer-plan"
"""What is signed for one purpose counts for no other."""
_TIMEOUT = 120.0


def sign(message: bytes, key: Path) -> str:
    """The armoured signature of a message by a private key, or by an agent that has the key to a
    public one. Asks for a passphrase on the terminal where the key has one. Raises RetainerError.
    """
    done = _keygen(["-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key)], message, asks=True)
    if done.returncode or b"BEGIN SSH SIGNATURE" not in done.stdout:
        raise RetainerError(
            f"{key} signs nothing: {_said(done)}",
            hint="name a key of SSH with --key, such as ~/.ssh/id_ed25519",
        )
    return done.stdout.decode()


def signer(message: bytes, signature: str, allowed: Path) -> str | None:
    """Whose signature this is: the principal that the file of allowed signers gives the key; None
    where nobody's, or of another message. Raises RetainerError where that cannot be found out."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "signature"
        file.write_text(signature, encoding="ascii", errors="replace")
        options = ["-f", str(allowed), "-n", NAMESPACE, "-s", str(file)]
        found = _keygen(["-Y", "find-principals", *options], message)
        for principal in found.stdout.decode(errors="replace").splitlines():
            if not re.fullmatch(r"[^\s,*?!\"]{1,200}", principal):
                continue  # a pattern is nobody
            if _keygen(["-Y", "verify", "-I", principal, *options], message).returncode == 0:
                return principal
    return None


def _keygen(
    words: list[str], message: bytes, *, asks: bool = False
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *words],
            input=message,
            capture_output=True,
            timeout=None if asks else _TIMEOUT,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise RetainerError(
            "there is no ssh-keygen here", hint="install the client of OpenSSH (8.2 or later)"
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise RetainerError(f"ssh-keygen did not answer ({type(error).__name__})") from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"ssh-keygen ended with {done.returncode}"
