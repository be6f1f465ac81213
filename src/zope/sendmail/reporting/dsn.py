"""A delivery status notification: it tells the sender which recipients will not get the mail, and why.

Pure.  RFC 3464 (the report), RFC 3462 (multipart/report), RFC 3834 (automatic answers), RFC 6533 (addresses beyond
ASCII).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from email import policy
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime

from zope.sendmail.lifecycle.outcome import Reply, printable
from zope.sendmail.message.address import is_ascii
from zope.sendmail.message.headers import header_block

#: So much of the header of the mail goes back, no more.
_MAX_HEADER = 32 * 1024

_EXPLANATION = """\
This is the mail system of {host}.

Your mail could not be delivered to one or more recipients. It will not be tried again for them.

{recipients}

The header of your mail follows.
"""


def notification(
    *, sender: str, head: bytes, replies: Mapping[str, Reply], relay: str, host: str, message_id: str, moment: datetime
) -> bytes:
    """Return the report about `replies`, to be sent to `sender` from the null reverse-path.

    :param head: the beginning of the mail, with its header
    :param replies: those about the recipients who do not get the mail
    :param relay: the relay that was asked, for people
    :param host: the name of the host that reports
    :param message_id: that of the report, without brackets
    :param moment: when the last attempt was made
    """
    report = MIMEMultipart("report", report_type="delivery-status")
    report["Message-Id"] = f"<{message_id}>"
    report["Date"] = format_datetime(moment)
    report["From"] = f"Mail Delivery System <MAILER-DAEMON@{host}>"
    report["To"] = sender
    report["Subject"] = "Undelivered mail"
    report["Auto-Submitted"] = "auto-replied"
    replies = {printable(who): reply for who, reply in replies.items()}  # a malformed one may have anything in it
    words = "\n".join(f"<{who}>: {reply}" for who, reply in replies.items())
    report.attach(MIMEText(_EXPLANATION.format(host=host, recipients=words), _charset=_charset(words)))
    report.attach(_status(replies, relay, host, moment))
    report.attach(_header_of(head))
    return report.as_bytes(policy=policy.SMTP if is_ascii(sender) else policy.SMTPUTF8)


def _status(replies: Mapping[str, Reply], relay: str, host: str, moment: datetime) -> Message:
    """Return the part for programs: a group of fields for the message, and one for each recipient (RFC 3464, 2.1)."""
    about = Message()
    about["Reporting-MTA"] = f"dns; {host}"
    groups: list[Message | str] = [about]
    for who, reply in replies.items():
        group = Message()
        group["Final-Recipient"] = f"{'rfc822' if is_ascii(who) else 'utf-8'}; {_ascii(who)}"
        group["Action"] = "failed"
        group["Status"] = _status_code(reply)
        if relay and reply.code:
            group["Remote-MTA"] = f"dns; {relay.rpartition(':')[0]}"
        if reply.code:
            group["Diagnostic-Code"] = f"smtp; {_ascii(str(reply))}"
        group["Last-Attempt-Date"] = format_datetime(moment)
        groups.append(group)
    part = Message()
    part["Content-Type"] = "message/delivery-status"
    part.set_payload(groups)
    return part


def _header_of(head: bytes) -> Message:
    part = Message()
    part["Content-Type"] = "text/rfc822-headers"
    text = header_block(head)[:_MAX_HEADER].decode("utf-8", "replace")
    part.set_payload("\n".join(text.splitlines()), "utf-8")  # travels as base64, so no relay can take offence
    return part


def _status_code(reply: Reply) -> str:
    """Return an enhanced status code of class 5 or 4; 5.0.0 if the relay gave none (RFC 3463, 3.1)."""
    return reply.enhanced if reply.enhanced and reply.enhanced[0] in "45" else "5.0.0"


def _charset(text: str) -> str:
    return "us-ascii" if text.isascii() else "utf-8"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
