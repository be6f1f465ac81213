"""TLS with a relay: what we trust, what we show; what may be wrong there, and what people can do about it.

RFC 5246, 7.4.6; RFC 8446, 4.4.2 and 6.2.
"""

from __future__ import annotations

import functools
import os
import ssl
from datetime import datetime

from zope.sendmail.config.settings import RelaySettings, TlsVersion
from zope.sendmail.errors import RelayError
from zope.sendmail.smtp.certificate import validity

_VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}

#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_NOT_YET, _EXPIRED = 9, 10

#: What a relay says about our certificate (RFC 8446, 6.2), as OpenSSL calls it.
_NO_CERTIFICATE = "CERTIFICATE_REQUIRED"
_BAD_CERTIFICATE = (
    "BAD_CERTIFICATE",
    "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
)
_NO_AGREEMENT = "ALERT_HANDSHAKE_FAILURE"


#: Contexts that are kept.
_KEPT = 16


def tls_context(settings: RelaySettings) -> ssl.SSLContext:
    """Return what verifies the relay's certificate and name if the settings ask for it; TLS 1.2 is the least.

    To read the system's authorities takes longer than everything else about a connection, so a context is used again
    as long as the files that it was made of are the same.

    Raises `RelayError` if the authorities' certificates, or our own, cannot be used.
    """
    if settings.ssl_context is not None:
        return settings.ssl_context()
    verifies, files = settings.must_verify, [settings.certfile, settings.keyfile]
    if verifies:
        system = ssl.get_default_verify_paths()
        files += [system.cafile, system.capath] if settings.cafile is None else [settings.cafile]
    return _context(
        settings.cafile if verifies else None,
        settings.certfile,
        settings.keyfile,
        settings.tls_minimum,
        verifies=verifies,
        states=tuple(_state(path) for path in files if path is not None),
    )


@functools.lru_cache(_KEPT)
def _context(
    cafile: str | None,
    certfile: str | None,
    keyfile: str | None,
    least: TlsVersion,
    *,
    verifies: bool,
    states: tuple[tuple[int, ...], ...],  # noqa: ARG001 - of the files, so that others are read when they change
) -> ssl.SSLContext:
    if verifies:
        context = verifying_context(cafile)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without loading authorities that are not asked
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = _VERSIONS[least]
    if certfile is not None:
        show_certificate(context, certfile, keyfile)
    return context


def _state(path: str) -> tuple[int, ...]:
    """Return what is another one as soon as the file at `path` is changed or replaced; nothing if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_about_time(error: ssl.SSLCertVerificationError) -> bool:
    """Return whether a certificate is not valid any more, or not yet."""
    return getattr(error, "verify_code", 0) in (_NOT_YET, _EXPIRED)  # one that a mailer made has none


def cure_for_time(error: ssl.SSLCertVerificationError, shown: bytes, now: datetime) -> str:
    """Return what to do about a certificate that is not valid now.

    :param shown: the relay's certificate (DER); nothing if that is not known.
    :param now: with a time zone.
    """
    is_late = getattr(error, "verify_code", 0) == _EXPIRED
    times = validity(shown)
    clock = f"unless the clock of this host is wrong ({now:%Y-%m-%d %H:%M} UTC)"
    if times is None:
        when = "has expired" if is_late else "is not valid yet"
        return f"a certificate of the relay {when}: the relay's operator has to renew it, {clock}"
    begin, end = times
    if is_late and end < now:
        return f"the relay's certificate expired on {end:%Y-%m-%d %H:%M} UTC: its operator has to renew it, {clock}"
    if not is_late and begin > now:
        return f"the relay's certificate is valid from {begin:%Y-%m-%d %H:%M} UTC on: its operator has to wait, {clock}"
    return (
        f"the relay's own certificate is valid until {end:%Y-%m-%d %H:%M} UTC, but one of its issuers' is not: its "
        f"operator has to send the new chain, {clock}"
    )


def cure_for_alert(error: BaseException, *, shows_certificate: bool) -> str:
    """Return what to do if the relay has ended TLS because of our certificate; nothing if it has not."""
    reason = _reason(error)
    if _NO_CERTIFICATE in reason or (_NO_AGREEMENT in reason and not shows_certificate):
        may = "wants" if _NO_CERTIFICATE in reason else "has no cipher in common with us, or wants"
        return f"the relay {may} a certificate of ours: name its file with certfile, and its key with keyfile"
    if "ALERT" in reason and reason.endswith(_BAD_CERTIFICATE) and shows_certificate:
        return "the relay does not accept our certificate (certfile): ask its operator for one that it knows"
    return ""


def _reason(error: BaseException | None) -> str:
    """Return what OpenSSL said, behind whatever was made of it."""
    for _ in range(5):
        if error is None:
            break
        if isinstance(error, ssl.SSLError) and error.reason:
            return error.reason
        error = error.__cause__ or error.__context__
    return ""


def verifying_context(cafile: str | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in `cafile`, or else the system's.

    :raises RelayError: the file cannot be used; the text says why.
    """
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
    """Let `context` show the relay our certificate.

    :raises RelayError: a file cannot be used; the text says which, and what to do.
    """
    _check_readable("certfile", certfile)
    if keyfile is not None:
        _check_readable("keyfile", keyfile)
    key = f"keyfile {keyfile!r}" if keyfile is not None else f"certfile {certfile!r}"

    def refuse() -> str:
        raise RelayError(
            f"the key in {key} is encrypted, and there is no person to ask for its password; "
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
