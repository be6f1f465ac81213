"""How the end of a transaction is told: with smtplib's errors, which the users of a mailer know."""

from __future__ import annotations

import smtplib

from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.smtp.protocol.commands import CommandName, MailNotSupported
from zope.sendmail.smtp.protocol.progress import Progress, pairs
from zope.sendmail.smtp.protocol.steps import ConnectionLost, Refused


class NotSendable(smtplib.SMTPSenderRefused):
    """This mail cannot be given to this relay; it was not asked.  `reply` says why."""

    def __init__(self, code: int, reply: Reply, sender: str) -> None:
        super().__init__(code, f"{reply.enhanced} {reply.text}".encode(), sender)
        self.reply = reply


def as_smtplib_error(error: ConnectionLost | MailNotSupported | Refused, progress: Progress) -> smtplib.SMTPException:
    """Return the error of smtplib that says the same."""
    if isinstance(error, MailNotSupported):
        return NotSendable(error.code, error.reply, progress.envelope.sender)
    if isinstance(error, ConnectionLost):
        return smtplib.SMTPServerDisconnected(str(error))
    response = error.response
    if response is None:
        return smtplib.SMTPRecipientsRefused(pairs(progress.refused))
    if error.command is CommandName.RCPT:
        return smtplib.SMTPRecipientsRefused({error.recipient: (response.code, response.text)})
    if error.command is CommandName.MAIL:
        return smtplib.SMTPSenderRefused(response.code, response.text, progress.envelope.sender)
    return smtplib.SMTPDataError(response.code, response.text)
