"""Mail that waits, that expires, that goes first, and that is sent once."""

from datetime import UTC, datetime, timedelta

from zope.sendmail.sender import MailSender

MESSAGE = "From: shop@example.org\nSubject: Your order\n\nThank you.\n"

with MailSender("mail-queue", "mail.example.org", 25) as sender:
    # A code that is of no use in ten minutes, before all newsletters.
    sender.send("shop@example.org", "jane@example.org", MESSAGE, priority="high", expires=timedelta(minutes=10))

    # Tomorrow at nine, in UTC; also after a restart.
    tomorrow = datetime.now(UTC).replace(hour=9, minute=0, second=0) + timedelta(days=1)
    sender.send("shop@example.org", "jim@example.org", MESSAGE, not_before=tomorrow)

    # Once, however often the job is tried.
    first = sender.send("shop@example.org", "joe@example.org", MESSAGE, key="order 17 confirmed")
    again = sender.send("shop@example.org", "joe@example.org", MESSAGE, key="order 17 confirmed")
    assert first == again
