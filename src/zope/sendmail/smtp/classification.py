"""How an attempt ended: from what was raised to an `Outcome`.

What went wrong with the relay is told as its fault and costs no mail anything, as long as no mail had been begun.
From MAIL on it is unknown whether the relay or this mail is to blame: both are, so that no mail can stand in the way
of all others for ever.  What is not understood is temporary.  RFC 5321, 4.2 and 3.8 (421); RFC 1047 (unknown); RFC
4954, 6 (the codes of AUTH).
"""

from __future__ import annotations

import errno
import smtplib
import socket
import ssl
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from zope.sendmail.errors import RelayError
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.smtp.protocol.progress import Progress, reply_about_mail, reply_from
from zope.sendmail.smtp.protocol.relaylimits import refuses_client, tells_mails_per_connection
from zope.sendmail.smtp.smtperrors import NotSendable

#: The relay is about to stop, or wants a login or TLS that it does not get: not a matter of one mail.
RELAY_CODES = frozenset({421, 454, 530, 534, 535, 538})

#: A login is missing, or is not good enough.
LOGIN_CODES = frozenset({530, 534, 535, 538})

#: The connection was there and is not any more, or no answer came.
_LOST = (
    smtplib.SMTPServerDisconnected,
    TimeoutError,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
)

#: There never was a connection that a mail could have been sent on.
_NOT_REACHED = (
    smtplib.SMTPAuthenticationError,
    smtplib.SMTPConnectError,
    smtplib.SMTPHeloError,
    smtplib.SMTPNotSupportedError,
    ConnectionRefusedError,
    socket.gaierror,
    ssl.SSLError,
    RelayError,
)

#: The certificate is good, and another host's: X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME = frozenset({62, 64})

#: What OpenSSL calls the greeting of a relay that speaks in clear.
_NO_TLS_THERE = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})


def succeeded(relay: str, progress: Progress) -> Outcome:
    """Return the outcome of an attempt in which nothing was raised."""
    return Outcome(relay, {**progress.refused, **progress.accepted}, None, tuple(progress.unasked))


def failed(relay: str, progress: Progress, error: Exception) -> Outcome:
    """Return the outcome of an attempt that ended with `error`."""
    if not progress.opened or isinstance(error, _NOT_REACHED) or _is_unreachable(error):
        return _not_reached(relay, progress, error)
    if isinstance(error, _LOST):
        return _lost(relay, progress, error)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return _recipients_refused(relay, progress, error)
    if isinstance(error, NotSendable):
        return _for_the_rest(relay, progress, error.reply)
    if isinstance(error, smtplib.SMTPResponseException):
        return _refused(relay, progress, error)
    return _for_the_rest(relay, progress, Reply(Answer.DEFERRED, _text(error)))


def fault(error: Exception) -> Reply:
    """Return what `error` says about the relay."""
    if isinstance(error, smtplib.SMTPResponseException):
        return replace(Reply.of(_code(error), _said(error)), answer=Answer.DEFERRED)
    return Reply(Answer.DEFERRED, _text(error), error.code if isinstance(error, RelayError) else None)


def _not_reached(relay: str, progress: Progress, error: Exception) -> Outcome:
    addresses = (progress.envelope.sender, *progress.envelope.recipients)
    if progress.opened and isinstance(error, smtplib.SMTPNotSupportedError) and not "".join(addresses).isascii():
        # Most likely a mailer that asked for SMTPUTF8; as a fault it would stand in the way of all mails.
        return _for_the_rest(relay, progress, Reply(Answer.DEFERRED, _text(error)))
    return Outcome(relay, dict(progress.refused), fault(error))


def _lost(relay: str, progress: Progress, error: Exception) -> Outcome:
    if not progress.intended:
        return _both(relay, progress, fault(error))
    unknown = Reply(Answer.UNKNOWN, f"the connection was lost before the relay's answer: {_text(error)}")
    return replace(_for_the_rest(relay, progress, unknown), fault=fault(error))


def _recipients_refused(relay: str, progress: Progress, error: smtplib.SMTPRecipientsRefused) -> Outcome:
    told: object = error.recipients  # whatever a foreign mailer put there
    if not isinstance(told, Mapping):
        told = {}
    recipients = progress.envelope.recipients
    known = progress.refused  # what the relay said, as it counts
    replies = {each: known.get(each) or _refusal(reply_from(told[each])) for each in recipients if each in told}
    if not replies:
        return _for_the_rest(relay, progress, Reply(Answer.DEFERRED, _text(error)))
    leaving = next((reply for reply in replies.values() if _is_about_relay(reply)), None)
    progress.refused.update({each: reply for each, reply in replies.items() if not _is_about_relay(reply)})
    if leaving is not None:
        return _both(relay, progress, replace(leaving, answer=Answer.DEFERRED))
    return Outcome(relay, dict(progress.refused), None, tuple(progress.unasked))


def _refused(relay: str, progress: Progress, error: smtplib.SMTPResponseException) -> Outcome:
    """MAIL, DATA or the message was refused."""
    code = _code(error)
    # It has just taken our login: that this is not good enough for this mail says nothing about others.
    is_about_sender = progress.logged_in and code in LOGIN_CODES
    if code in RELAY_CODES and not is_about_sender:
        return _both(relay, progress, fault(error))
    reply = reply_about_mail(code, _said(error))
    if refuses_client(reply):
        return _both(relay, progress, replace(reply, answer=Answer.DEFERRED))
    if tells_mails_per_connection(reply.text):  # a limit of the relay, whatever the first digit
        reply = replace(reply, answer=Answer.DEFERRED)
    return _for_the_rest(relay, progress, _refusal(reply))


def _is_about_relay(reply: Reply) -> bool:
    """Return whether the relay is going, or takes no mail from us at all."""
    return reply.code == 421 or refuses_client(reply)


def _refusal(reply: Reply) -> Reply:
    """Return the reply as a refusal: smtplib raises an error with 250 if that answers DATA."""
    return replace(reply, answer=Answer.DEFERRED) if reply.answer is Answer.ACCEPTED else reply


def _for_the_rest(relay: str, progress: Progress, reply: Reply) -> Outcome:
    """Return the outcome in which others get this reply; from MAIL on only recipients that were asked about."""
    known = {**progress.refused, **progress.served}
    unasked = tuple(progress.unasked) if progress.begun else ()
    others = _without(progress.envelope.recipients, {*known, *unasked} if unasked else known)
    return Outcome(relay, {**known, **dict.fromkeys(others, reply)}, None, unasked)


def _both(relay: str, progress: Progress, reply: Reply) -> Outcome:
    """Return the outcome for a relay that cannot be used now, where the mail in hand has had its attempt."""
    return replace(_for_the_rest(relay, progress, reply), fault=reply)


def _without(recipients: Iterable[str], known: Container[str]) -> list[str]:
    return [recipient for recipient in recipients if recipient not in known]


def _is_unreachable(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _UNREACHABLE


def _code(error: smtplib.SMTPResponseException) -> int:
    code: object = error.smtp_code  # a foreign mailer may have put anything there
    return code if isinstance(code, int) else 0


def _said(error: smtplib.SMTPResponseException) -> str | bytes:
    said: object = error.smtp_error
    return said if isinstance(said, (str, bytes)) else str(said)


def _text(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}{_cure(error)}")


def _cure(error: Exception) -> str:
    """Return what the operator can do about TLS that does not come about."""
    if notes := getattr(error, "__notes__", ()):
        return "; " + "; ".join(notes)
    if isinstance(error, ssl.SSLCertVerificationError):
        otherwise = "or say verify=no to take any host for the relay"
        if getattr(error, "verify_code", 0) in _OTHER_NAME:  # one that a mailer made has none
            return f"; name the relay as its certificate does, {otherwise}"
        return f"; name the authority of its certificate with cafile, {otherwise}"
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS_THERE:
        return "; the relay speaks no TLS at once at this port: say tls=required for STARTTLS, usually at port 587"
    return ""
