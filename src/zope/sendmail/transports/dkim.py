"""A mailer that signs: DKIM (RFC 6376) for the domain in From, with RSA (RFC 8301) or Ed25519 (RFC 8463).

What is signed is what goes over the wire: lines end with CRLF, Bcc is gone, and text beyond ASCII is encoded before,
since a relay may do that (RFC 6376, 5.3).  Mail is signed at each attempt, so one that waited for days has a fresh
signature.  Needs the extra ``dkim`` (dkimpy).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from email.utils import getaddresses
from functools import cached_property
from io import BytesIO
from math import inf
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import InvalidSettings
from zope.sendmail.interfaces import IJobSource, IOrdinaryJob, ISession, ISessionMailer, IStreamingSession
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.mailer import open_session
from zope.sendmail.message.domain import ascii_domain
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import fields_of, header_block, message_id_in, wire
from zope.sendmail.reporting import maillog
from zope.sendmail.smtp.pipeline import Step, stream_in_steps
from zope.sendmail.smtp.protocol.sevenbit import CannotConvert, in_seven_bit
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.transports.innerlimits import InnerLimits
from zope.sendmail.transports.onemailcalls import OneMailCalls

#: Signed once more than they occur, so that none can be added on the way (RFC 6376, 8.15).
_OVERSIGNED = (b"from", b"to", b"cc", b"subject", b"date", b"reply-to")
#: Signed as often as they occur (RFC 6376, 5.4.1; RFC 8058, 4 asks for those of the list).
_SIGNED = (
    *_OVERSIGNED,
    *b"sender message-id in-reply-to references mime-version content-type content-transfer-encoding".split(),
    *b"list-id list-unsubscribe list-unsubscribe-post list-post list-help list-archive feedback-id".split(),
)

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*")
_DOMAIN = _SELECTOR
_PEM = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
#: What PKCS #8 has in front of the 32 octets of an Ed25519 key (RFC 8410, 7).
_ED25519 = bytes.fromhex("302e020100300506032b657004220420")


class DKIMKey:
    """A private key in a file, which is read anew when it changes, and the domain that it speaks for.

    :param domain: signs mail whose From is in this domain or below it, unless another key is nearer.
    :param selector: where the public key is: ``SELECTOR._domainkey.DOMAIN``.
    :param path: RSA or Ed25519 in PEM, as ``openssl genpkey`` writes it.
    :raises InvalidSettings: one of them cannot be meant, or there is no such key.

    A file that becomes unreadable is told once in the log, and the former key goes on.  Concurrency: any thread.
    """

    def __init__(self, domain: str, selector: str, path: str) -> None:
        named = ascii_domain(domain.strip().rstrip(".").lower())
        if not named or not _DOMAIN.fullmatch(named):
            raise InvalidSettings(f"the domain {domain!r} of a DKIM key is none; write one like example.org")
        self.domain = named
        if not _SELECTOR.fullmatch(selector):
            raise InvalidSettings(f"{selector!r} is no selector of a DKIM key; write one like mail2026")
        self.selector = selector
        self.path = os.path.abspath(path)
        self._mutex = ForkLock()
        _check_installed()
        self._seen = _signature_of(self.path)
        self._algorithm, self._key = _read_key(self.path)

    def sign(self, message: bytes) -> bytes:
        """Return the header field that signs `message`, with its line end.

        :raises dkim.DKIMException: the message cannot be signed.
        """
        import dkim

        algorithm, key = self._current()
        signer = dkim.DKIM(message)
        names = [name.lower() for name, _ in signer.headers]
        counted = [name for name in names if name in _SIGNED]
        field: bytes = signer.sign(
            self.selector.encode(),
            self.domain.encode(),
            key,
            signature_algorithm=algorithm,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[*counted, *_OVERSIGNED],
        )
        return field

    def _current(self) -> tuple[bytes, bytes]:
        with self._mutex:
            now = _signature_of(self.path)
            if now != self._seen:
                self._seen = now
                try:
                    self._algorithm, self._key = _read_key(self.path)
                except InvalidSettings as error:
                    maillog.key_unreadable(str(error))
            return self._algorithm, self._key

    def __repr__(self) -> str:
        return f"DKIMKey({self.domain!r}, {self.selector!r}, {self.path!r})"


def _check_installed() -> None:
    """Raise `InvalidSettings` if what signs is not installed: now, and not with the first mail."""
    try:
        import dkim.crypto  # noqa: F401 - looked for
        import nacl.signing  # noqa: F401 - dkimpy goes on without it, until there is an Ed25519 key
    except ImportError as error:
        text = f"signing needs {error.name}; install it: pip install 'zope.sendmail[dkim]'"
        raise InvalidSettings(text) from error


def _signature_of(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is written or replaced; None if it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_key(path: str) -> tuple[bytes, bytes]:
    """Return the algorithm and the key in the form that dkimpy wants.

    :raises InvalidSettings: it cannot be read, or is no private key.
    """
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise InvalidSettings(f"the DKIM key {path!r} cannot be read: {error.strerror}") from error
    match = _PEM.search(text)
    if match is None or match[1] not in (b"PRIVATE KEY", b"RSA PRIVATE KEY"):
        raise InvalidSettings(
            f"the DKIM key {path!r} is no private key in PEM without a passphrase; make one: openssl genpkey "
            "-algorithm ed25519, or -algorithm rsa -pkeyopt rsa_keygen_bits:2048"
        )
    try:
        octets = base64.b64decode(b"".join(match[2].split()), validate=True)
    except ValueError:
        raise InvalidSettings(f"the DKIM key {path!r} is damaged: it is not base64") from None
    if octets.startswith(_ED25519) and len(octets) == len(_ED25519) + 32:
        return b"ed25519-sha256", base64.b64encode(octets[-32:])
    _check_rsa(text, path)
    return b"rsa-sha256", text


def _check_rsa(text: bytes, path: str) -> None:
    """Refuse what is neither RSA nor long enough for verifiers (RFC 8301, 3.2)."""
    from dkim.crypto import UnparsableKeyError, parse_pem_private_key

    try:
        bits = parse_pem_private_key(text)["modulus"].bit_length()
    except (UnparsableKeyError, KeyError, ValueError, IndexError, TypeError) as error:
        raise InvalidSettings(f"the DKIM key {path!r} is neither RSA nor Ed25519") from error
    if bits < 1024:
        raise InvalidSettings(f"the DKIM key {path!r} has {bits} bits, which verifiers ignore; make one with 2048")


@implementer(ISessionMailer)
class DKIMSigner(InnerLimits, OneMailCalls):
    """Signs what goes through `mailer`.

    :param keys: at least one; two of one domain (RSA and Ed25519) sign both.  A mail whose From has no key goes out as
        it is, which is logged once for each domain.
    :raises InvalidSettings: there is no key, or dkimpy is not installed.
    """

    def __init__(self, mailer: Any = None, keys: Iterable[DKIMKey] = ()) -> None:
        self.mailer = mailer
        self.keys = tuple(keys)
        if not self.keys:
            raise InvalidSettings("there is nothing to sign with; name a key: domain=selector:/path/to/key.pem")
        self._told: set[str] = set()

    @property
    def mailers(self) -> tuple[Any, ...]:
        """See ``InnerLimits``."""
        return (self.mailer,)

    def open_session(self) -> ISession:
        """See `ISessionMailer`.  Raises `InvalidSettings` if there is no mailer behind."""
        return self._open(interactive=False)

    def open_interactive_session(self) -> ISession:
        """See ``OneMailCalls``."""
        return self._open(interactive=True)

    def _open(self, *, interactive: bool) -> ISession:
        if self.mailer is None:
            raise InvalidSettings("DKIMSigner has no mailer to send through; name one")
        session = open_session(self.mailer, interactive=interactive)
        kind = StreamingDKIMSession if hasattr(session, "stream") else DKIMSession
        return kind(self, session)

    def signed(self, message: BinaryIO) -> BinaryIO:
        """Return the message with a signature of each key for its From."""
        text = b"".join(wire(message))
        keys = self._keys_for(text)
        if not keys:
            return BytesIO(text)
        if b"\r\n\r\n" not in text:  # no body: some verifiers look for the signature above the empty line
            text += b"\r\n"
        if not text.isascii():
            with suppress(CannotConvert):  # it has another signature, which the conversion would break
                text = in_seven_bit(text)
        from dkim import DKIMException

        try:
            return BytesIO(b"".join(key.sign(text) for key in keys) + text)
        except DKIMException as error:
            maillog.not_signed(message_id_in(BytesIO(text)), str(error))
            return BytesIO(text)

    def _keys_for(self, text: bytes) -> list[DKIMKey]:
        """Return the keys of the nearest domain; none if From is missing."""
        domain = _from_domain(text)
        name = domain
        while name:
            keys = [key for key in self.keys if key.domain == name]
            if keys:
                return keys
            name = name.partition(".")[2]
        if domain and domain not in self._told:
            self._told.add(domain)
            maillog.key_missing(domain)
        return []


def _from_domain(text: bytes) -> str:
    """Return the domain of the first address in From, in ASCII and lower case; empty if there is none."""
    for match in fields_of(header_block(text)):
        if match["name"].lower() == b"from":
            value = match["value"].decode("utf-8", "replace").replace("\r\n", "")
            addresses = [address for _, address in getaddresses([value]) if "@" in address]
            return (ascii_domain(addresses[0].rpartition("@")[2].rstrip(".").lower()) or "") if addresses else ""
    return ""


@implementer(ISession)
class DKIMSession:
    """See `ISession`."""

    def __init__(self, signer: DKIMSigner, session: Any) -> None:
        self._signer = signer
        self._session = session

    @property
    def relay(self) -> str:
        """See `ISession`."""
        relay: str = self._session.relay
        return relay

    def verify(self, envelope: Envelope, message: BinaryIO) -> Outcome:
        """See `ISession`.  The relay is asked about the signed message, which is larger."""
        outcome: Outcome = self._session.verify(envelope, self._signer.signed(message))
        return outcome

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`."""
        outcome: Outcome = self._session.transfer(envelope, self._signer.signed(message), intend)
        return outcome

    def rest(self) -> None:
        """See `ISession`."""
        self._session.rest()

    def close(self) -> None:
        """See `ISession`."""
        self._session.close()


@implementer(IStreamingSession)
class StreamingDKIMSession(DKIMSession):
    """See `IStreamingSession`; the jobs that the session behind gets open a signed message."""

    @property
    def lets_go(self) -> bool:
        """Whether the session behind calls `IJobSource`'s ``let_go()``."""
        return bool(getattr(self._session, "lets_go", False))

    def stream(self, jobs: IJobSource) -> Iterator[tuple[Any, Outcome | Exception]]:
        """See `IStreamingSession`."""
        for job, outcome in self._session.stream(_SigningSource(jobs, self._signer)):
            yield job.job, outcome

    def stream_in_steps(self, jobs: IJobSource) -> Generator[Step, bool | None, None]:
        """Do the same, in the steps of the session behind."""
        steps, told = stream_in_steps(self._session, _SigningSource(jobs, self._signer)), None
        with closing(steps), suppress(StopIteration):
            while True:
                step = steps.send(told)
                if isinstance(step, tuple):
                    signed: Any = step[0]
                    step = signed.job, step[1]
                told = yield step

    def waited(self) -> float:
        """Return how long the session behind has waited for its relay, as a session of SMTP does."""
        found: float = getattr(self._session, "waited", _not_known)()
        return found

    def distance(self) -> float | None:
        """Return how far away the relay is, as a session of SMTP does."""
        found: float | None = getattr(self._session, "distance", _nothing)()
        return found


@implementer(IJobSource)
class _SigningSource:
    """See `IJobSource`."""

    def __init__(self, jobs: IJobSource, signer: DKIMSigner) -> None:
        self._jobs = jobs
        self._signer = signer
        for name in ("let_go", "meanwhile", "may_wait"):
            if hasattr(jobs, name):
                setattr(self, name, getattr(jobs, name))

    def next(self) -> _SignedJob | None:
        """See `IJobSource`."""
        job = self._jobs.next()
        return None if job is None else _SignedJob(job, self._signer)


@implementer(IOrdinaryJob)
class _SignedJob:
    """See `IOrdinaryJob`.  It is signed once."""

    def __init__(self, job: Any, signer: DKIMSigner) -> None:
        self.job = job
        self.envelope = job.envelope
        self.intend = job.intend
        self._signer = signer

    def open(self) -> BinaryIO:
        """See `IJob`."""
        return BytesIO(self._signed)

    @property
    def text(self) -> bytes | None:
        """See `IOrdinaryJob`."""
        return None if getattr(self.job, "text", None) is None else self._signed

    @cached_property
    def _signed(self) -> bytes:
        text = getattr(self.job, "text", None)  # else the stream is the lease's, which ends it
        return self._signer.signed(self.job.open() if text is None else BytesIO(text)).read()


def _not_known() -> float:
    """Return how long a relay was waited for, where its session does not tell."""
    return inf


def _nothing() -> None:
    """Do not know."""
