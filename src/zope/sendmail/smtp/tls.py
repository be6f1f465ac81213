"""Files of certificates: the authorities that we trust, and our own, shown to the relay; and what may be wrong there.

RFC 5246, 7.4.6; RFC 8446, 4.4.2.
"""

from __future__ import annotations

import ssl

from zope.sendmail.errors import RelayError


def verifying_context(cafile: str | None) -> ssl.SSLContext:
    """Trusts the authorities in `cafile`, or else the system's.  Raises `RelayError` that says what is wrong."""
    if cafile is None:
        return ssl.create_default_context()
    _check_readable("cafile", cafile)
    try:
        return ssl.create_default_context(cafile=cafile)
    except ssl.SSLError as error:
        raise RelayError(
            f"cafile {cafile!r} holds no certificate in PEM form ('-----BEGIN CERTIFICATE-----'): "
            f"{error.reason or error}"
        ) from error


def show_certificate(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    """Let `context` show it.  Raises `RelayError` that says which file is wrong and what to do."""
    _check_readable("certfile", certfile)
    if keyfile is not None:
        _check_readable("keyfile", keyfile)
    key = f"keyfile {keyfile!r}" if keyfile is not None else f"certfile {certfile!r}"

    def refuse() -> str:
        raise RelayError(
            f"the key in {key} is encrypted, and nobody is there to ask for its password; "
            "store it without one (openssl pkey -in KEY -out NEW), readable for this user only"
        )

    try:
        context.load_cert_chain(certfile, keyfile, refuse)
    except ssl.SSLError as error:
        raise RelayError(_explained(error, certfile, key)) from error


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise RelayError(f"{name} {path!r} cannot be read: {error.strerror}") from error


def _explained(error: ssl.SSLError, certfile: str, key: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} does not belong to the first certificate in certfile {certfile!r}"
    files = f"certfile {certfile!r}"
    return (
        f"{files if key == files else f'{files} and {key}'} hold no certificate and key in PEM form "
        f"('-----BEGIN CERTIFICATE-----' and '-----BEGIN PRIVATE KEY-----'): {error.reason or error}"
    )
