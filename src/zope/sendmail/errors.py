"""Every error that the package raises, but `zope.sendmail.interfaces.MailRefused`, which has an outcome.

An error answers one question: is it permanent?  What is unknown is temporary.
"""

from __future__ import annotations


class MailError(Exception):
    """Something about a mail, a relay or a queue went wrong.

    ``permanent`` says whether trying the same again is useless.
    """

    permanent = False


class InvalidMail(MailError, ValueError):
    """The arguments of ``send()`` cannot become a mail.  Nothing was written.

    Cure: correct the argument that the text names.
    """

    permanent = True


class InvalidAddress(InvalidMail):
    """An address that no relay can be given: empty, malformed, or with CR, LF, NUL in it."""


class InvalidMessage(InvalidMail):
    """A message that cannot be sent: not a text, or a Message-Id that is none."""


class InvalidRelay(InvalidMail):
    """A relay that mail may not name, or that is none.

    Cure: name one of the delivery's mailers, or add the relay's address to those that may be named.
    """


class MalformedEnvelope(MailError, ValueError):
    """A queue file does not begin with the two envelope lines.

    Cure: look at the file; somebody else wrote it, or the disk lost a part of it.
    """

    permanent = True


class QueueError(MailError, OSError):
    """The queue cannot do what was asked of it, now or ever; the text says why and what to do."""


class QueueNotSafe(QueueError):
    """The place of the queue has no hard links or no file locks, so a mail might be sent twice.

    Cure: put the queue on a local POSIX file system (ext4, XFS, btrfs, tmpfs, ...).
    """

    permanent = True


class NoSuchMail(QueueError, LookupError):
    """There is no mail of this name in the queue; it may have been sent in the meantime."""

    permanent = True


class NotPossible(QueueError):
    """The verb does not fit the state of the mail, e.g. ``release`` of one that is not held."""

    permanent = True


class LeaseLost(QueueError):
    """Another processor took the message over; it must not be sent by this one."""


class RelayError(MailError, ConnectionError):
    """The relay could not be used: not reached, greeting, EHLO, TLS or login failed.

    ``code`` is the SMTP reply code or None.  Says nothing about any message.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code
