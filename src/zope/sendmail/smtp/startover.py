"""When a mail is begun anew although the relay has failed or refused it, and what that tells about the relay.

Only where the relay certainly does not have the message.  Decides; does nothing.
"""

from __future__ import annotations

import smtplib
from collections.abc import Container, Iterator
from enum import Enum, auto

from zope.sendmail.lifecycle.throttling import too_much
from zope.sendmail.smtp.classification import RELAY_CODES
from zope.sendmail.smtp.protocol.commands import CommandName
from zope.sendmail.smtp.protocol.progress import Progress, reply_about_mail, reply_about_recipient, reply_from
from zope.sendmail.smtp.protocol.relaylimits import recipient_limit_told, tells_mails_per_connection
from zope.sendmail.smtp.protocol.steps import Refused


class StartOver(Enum):
    """Why a mail is begun anew."""

    #: The connection was dead before the mail, or its login had expired.
    DEAD = auto()
    #: The envelope went with the end of the mail before, and was lost.
    OVERLAP = auto()
    #: The relay announced PIPELINING, and failed when it was used.
    PIPELINING = auto()
    #: The relay takes no further mail over this connection.
    MAILS_PER_CONNECTION = auto()
    #: The relay takes no mail for so many recipients.
    TOO_MANY_RECIPIENTS = auto()
    #: The connection was to one of several addresses, and failed there.
    ADDRESS = auto()


def reason_to_start_over(
    progress: Progress,
    error: smtplib.SMTPException,
    *,
    is_new: bool,
    has_taken: bool,
    elsewhere: bool = False,
    tried: Container[StartOver] = (),
) -> StartOver | None:
    """Return why the mail is to be begun anew, or None if `error` is the end of the attempt.

    :param is_new: the connection was made for this mail
    :param has_taken: the relay took a mail over it before
    :param elsewhere: the relay has another address
    :param tried: for these reasons it was begun anew already
    """
    reasons = () if progress.intended else _reasons(progress, error, is_new, has_taken, elsewhere)
    return next((reason for reason in reasons if reason not in tried), None)


def _reasons(
    progress: Progress,
    error: smtplib.SMTPException,
    is_new: bool,  # noqa: FBT001 - as above
    has_taken: bool,  # noqa: FBT001 - given by keyword
    elsewhere: bool,  # noqa: FBT001 - given by keyword
) -> Iterator[StartOver]:
    refused = error.__cause__ if isinstance(error.__cause__, Refused) else None
    if _has_too_many(progress, refused, error):
        yield StartOver.TOO_MANY_RECIPIENTS
    elif has_taken and refused is not None and _wants_another_connection(progress, refused):
        yield StartOver.MAILS_PER_CONNECTION
    elif is_dead(error):
        if progress.sent_ahead:
            yield StartOver.OVERLAP
        elif not is_new and not progress.begun:
            yield StartOver.DEAD
        elif progress.pipelining_failed and isinstance(error, smtplib.SMTPServerDisconnected):
            yield StartOver.PIPELINING
        if is_new and elsewhere and not progress.text_wanted:
            yield StartOver.ADDRESS


def told_mails_per_connection(error: smtplib.SMTPException) -> bool:
    """Return whether the relay's words say that the connection has had its number of mails."""
    refused = error.__cause__
    response = refused.response if isinstance(refused, Refused) else None
    return response is not None and tells_mails_per_connection(reply_about_mail(*response).text)


def smaller_limit(progress: Progress, error: smtplib.SMTPException) -> int:
    """Return with how many recipients a mail is tried next that had too many: what the relay says, or half of them."""
    accepted = len(progress.accepted)
    if progress.has_too_many:
        return accepted
    refused = error.__cause__
    response = refused.response if isinstance(refused, Refused) else None
    told = None if response is None else recipient_limit_told(reply_about_mail(*response).text)
    return told if told is not None and told < accepted else max(1, accepted // 2)


def is_dead(error: smtplib.SMTPException) -> bool:
    """Return whether the connection failed, and not this mail."""
    return isinstance(error, smtplib.SMTPServerDisconnected) or is_leaving(error)


def is_about_server(error: smtplib.SMTPException) -> bool:
    """Return whether the server at this address failed, so that one at another may not: it hung up, or said 421 or 454.

    Where it wants less mail, or a login, so do the others.
    """
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return True
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        said = [reply_from(each) for each in error.recipients.values()]
    elif isinstance(error, smtplib.SMTPResponseException):
        said = [reply_from((error.smtp_code, error.smtp_error))]
    else:
        return False
    return any(reply.code in {421, 454} and too_much(reply) is None for reply in said)


def is_leaving(error: smtplib.SMTPException) -> bool:
    """Return whether the connection is of no use after this reply: it ends, lacks a login, or is out of step."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(reply_from(each).code == 421 for each in error.recipients.values())
    return getattr(error, "smtp_code", 0) in RELAY_CODES | {503}


def _has_too_many(progress: Progress, refused: Refused | None, error: smtplib.SMTPException) -> bool:
    """Return whether the message is refused for its recipients' number (Amazon SES), or the relay hung up at more."""
    if progress.has_too_many and not progress.text_wanted and is_dead(error):
        return True  # Postfix after smtpd_hard_error_limit
    if refused is None or refused.command is not CommandName.DATA or refused.response is None:
        return False
    return len(progress.accepted) > 1 and reply_about_recipient(*refused.response).is_one_too_many


def _wants_another_connection(progress: Progress, refused: Refused) -> bool:
    """Return whether a refusal behind other mails may be about this connection, and is worth one more question."""
    response = refused.response
    if response is None:  # all recipients were refused
        replies = progress.refused.values()
        return bool(replies) and all(each.is_one_too_many or tells_mails_per_connection(each.text) for each in replies)
    reply = reply_about_mail(*response)
    if tells_mails_per_connection(reply.text):
        return True
    is_command = refused.command in (CommandName.MAIL, CommandName.DATA) and not progress.text_wanted
    is_temporary = response.digit == 4 and response.code not in RELAY_CODES
    return is_command and is_temporary and too_much(reply) is None
