"""Sign the provenance, and through it the archive and the files beside it.

The signature is a Sigstore bundle, written by the package `model-signing`; `model_signing verify key` checks it.
Signing with a key does not use the network.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from models.errors import MixerError, UsageError
from models.storage.files import written_whole

Signer = Callable[[Path, Path], None]
"""Signs a file (the first path) and writes the bundle (the second)."""


def signer(key: Path) -> Signer:
    """Return a function that signs with a private key: PEM, elliptic curve, not encrypted.

    Raises:
        UsageError: the extra `sign` is not installed, or the file is not such a key.
    """
    if importlib.util.find_spec("model_signing") is None:
        raise UsageError(
            "--sign-key needs the package model-signing, which is not installed: .venv/bin/pip install -e '.[sign]' "
            "installs it; without --sign-key nothing is signed."
        )
    from model_signing import signing

    try:
        config = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=key)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"--sign-key {key} is not a usable private key ({type(error).__name__}: {error}): expected a PEM file "
            "with an unencrypted key of the curve P-256, P-384 or P-521."
        ) from error

    def sign(file: Path, bundle: Path) -> None:
        try:
            with written_whole(bundle) as whole:
                config.sign(file, Path(whole.name))
        except (OSError, ValueError) as error:
            raise MixerError(f"{file} could not be signed ({type(error).__name__}: {error}).") from error

    return sign
