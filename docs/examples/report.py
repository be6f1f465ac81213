"""Sends a report; docs/tutorials/script.rst is about it."""

import sys
from email.message import EmailMessage

from zope.sendmail.interfaces import InvalidMail
from zope.sendmail.sender import MailSender


def make_report(recipient: str) -> EmailMessage:
    """Return the mail."""
    message = EmailMessage()
    message["From"] = "Reports <reports@example.org>"
    message["To"] = recipient
    message["Subject"] = "The night's figures"
    message.set_content("All is well.\n")
    return message


def main(recipient: str, hostname: str = "localhost", port: int = 8025) -> None:
    """Send it, and say what became of it."""
    with MailSender("mail-queue", hostname, port) as sender:
        try:
            number = sender.send("reports@example.org", [recipient], make_report(recipient))
        except InvalidMail as error:
            raise SystemExit(f"This cannot be a mail: {error}") from None
        sender.finish(5)
        print(sender.status(number).standing)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "jane@example.org")
