"""The times within which a certificate is valid, read from its octets.  Pure.

Python's `ssl` tells them of certificates that it has verified only, and people need them where that failed.  RFC 5280,
4.1; X.690 (DER).
"""

from __future__ import annotations

from datetime import UTC, datetime

_SEQUENCE, _VERSION = 0x30, 0xA0
#: UTCTime has two digits for the year; those from 50 on are of the last century (RFC 5280, 4.1.2.5.1).
_FORMS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


def validity(certificate: bytes) -> tuple[datetime, datetime] | None:
    """Return the first and the last moment; None if the octets are no certificate.

    :param certificate: in DER form.
    """
    try:
        fields = _parts(_parts(certificate)[0][1])
        signed = _parts(fields[0][1])
        if signed[0][0] == _VERSION:
            del signed[0]
        begin, end = _parts(signed[3][1])  # behind serial number, algorithm and issuer
        return _time(*begin), _time(*end)
    except (ValueError, IndexError, KeyError):
        return None


def _parts(octets: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of the elements that follow each other in `octets`."""
    parts = []
    while octets:
        length, at = octets[1], 2
        if length & 0x80:
            at += length & 0x7F
            length = int.from_bytes(octets[2:at])
        if at + length > len(octets):
            raise ValueError("the octets end too early")
        parts.append((octets[0], octets[at : at + length]))
        octets = octets[at + length :]
    return parts


def _time(tag: int, text: bytes) -> datetime:
    moment = datetime.strptime(text.decode("ascii"), _FORMS[tag]).replace(tzinfo=UTC)
    if tag == 0x17 and moment.year >= 2050:
        return moment.replace(year=moment.year - 100)
    return moment
