"""Every error that the package raises, except `zope.sendmail.interfaces.MailRefused`, which carries an outcome.

Each error says whether it is permanent; an unknown one counts as temporary.  Programs that send mail catch
``smtplib.SMTPException`` and `OSError`, so every error that ``send()``, a vote or a relay setting raises is also one of
these.  Each one can be pickled.  Pure.
"""

from __future__ import annotations

import errno
import smtplib
from typing import Any


class MailError(Exception):
    """Something about a mail, a relay or a queue went wrong.

    ``permanent`` says whether trying the same again cannot succeed.
    """

    permanent = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore the error from its class, its text and its attributes; `__init__` may ask for other arguments."""
        state = dict(vars(self))
        number = getattr(self, "errno", None)
        return _restored, (type(self), self.args), state if number is None else {**state, "errno": number}


def _restored(kind: type[MailError], arguments: tuple[Any, ...]) -> MailError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    return error


# --- what a caller passes -------------------------------------------------------------------------------------


class InvalidMail(MailError, smtplib.SMTPException, ValueError):
    """The arguments of ``send()`` cannot become a mail.  Nothing was written.

    Cure: correct the argument that the text names.
    """

    permanent = True


class InvalidAddress(InvalidMail):
    """An address that cannot be given to any relay: it is empty or malformed, or has CR, LF or NUL in it."""


class InvalidSender(InvalidAddress, smtplib.SMTPSenderRefused):
    """An envelope sender that cannot be given to any relay.

    ``sender`` is what was passed; ``smtp_code`` and ``smtp_error`` are what a relay would have replied.
    """

    def __init__(self, text: str, sender: str = "") -> None:
        OSError.__init__(self, text)
        self.sender = sender
        self.smtp_code = 553
        self.smtp_error = f"5.1.7 {text}".encode("utf-8", "backslashreplace")


class InvalidRecipient(InvalidAddress, smtplib.SMTPRecipientsRefused):
    """An envelope recipient that cannot be given to any relay, or no recipient at all.

    ``recipients`` maps what was passed to the code and the text that a relay would have replied.
    """

    def __init__(self, text: str, *recipients: str) -> None:
        OSError.__init__(self, text)
        said = (553, f"5.1.3 {text}".encode("utf-8", "backslashreplace"))
        self.recipients = dict.fromkeys(recipients, said)


class InvalidMessage(InvalidMail):
    """A message that cannot be sent: it is not a text, or its Message-Id is invalid."""


class InvalidRelay(InvalidMail):
    """A relay that a mail may not name, or that is not valid.

    Cure: name one of the delivery's mailers, or add the relay's address to those that may be named.
    """


class InvalidTerms(InvalidMail):
    """An invalid request for a mail: a time without a zone, an invalid key, or an unknown priority.

    Cure: correct the argument that the text names.
    """


class InvalidSettings(MailError, smtplib.SMTPException, ValueError):
    """Settings of a relay, a mailer or a route that are invalid or contradict each other.

    Cure: correct the setting that the text names.
    """

    permanent = True


# --- what a queue says ----------------------------------------------------------------------------------------


class MalformedEnvelope(MailError, ValueError):
    """A queue file does not begin with the two envelope lines.

    Cure: look at the file; another program wrote it, or the disk lost a part of it.
    """

    permanent = True


class QueueError(MailError, OSError):
    """The queue cannot do what was asked, now or ever; the text says why and what to do."""


class QueueNotWritable(QueueError):
    """Mail cannot be put into the queue, because its disk refuses.  ``errno`` is that of the system.

    Cure: see the text; it depends on what the system refused.
    """

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.errno = number

    @classmethod
    def of(cls, location: str, error: OSError) -> QueueNotWritable:
        """Return the error that tells what the system refused at `location`, and the cure.

        :param location: the queue as people name it.
        :param error: what the system said.
        """
        place = f" ({error.filename})" if isinstance(error.filename, str) else ""
        why = error.strerror or str(error) or type(error).__name__
        cure = _CURES.get(error.errno or 0, "see what is wrong with that disk; 'zope-sendmail queue doctor' may know")
        return cls(f"mail cannot be put into the queue {location}: {why}{place}; {cure}", error.errno)


_RIGHTS = "let the user that runs this program write there, or run it as the queue's owner"
_SPACE = "free space, or move the queue to another disk"
_FILES = "let this process have more open files (ulimit -n)"
_PLACE = "make the directory, or correct the queue's path"

#: What people can do about it, by the system's word.
_CURES = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "the disk is mounted read-only: mount it read-write, or move the queue to another disk",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOENT: _PLACE,
    errno.ENOTDIR: _PLACE,
    errno.ELOOP: _PLACE,
    errno.ENAMETOOLONG: _PLACE,
}


class telling_refusals:  # noqa: N801 - reads as the verb that it is
    """Tell what the system refuses while mail is put into a queue as `QueueNotWritable`, in a ``with`` block.

    :param location: the queue as people name it.
    :raises QueueNotWritable: for an `OSError` that is no `MailError`, and for a directory that is no queue.
    """

    __slots__ = ("_location",)

    def __init__(self, location: str) -> None:
        self._location = location

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, MailError):
            return
        if isinstance(error, OSError):
            raise QueueNotWritable.of(self._location, error) from error
        if isinstance(error, ValueError):  # the directory is something else
            raise QueueNotWritable(f"mail cannot be put into the queue {self._location}: {error}") from error


class InvalidLocation(QueueError, ValueError):
    """A text that does not name a place where a queue can be.

    Cure: write a directory, or a known scheme.  The text of the error shows neither path nor password.
    """

    permanent = True


class QueueNotSafe(QueueError):
    """The place of the queue has no hard links or no file locks, so a mail might be sent twice.

    Cure: put the queue on a local POSIX file system (ext4, XFS, btrfs, tmpfs, ...).
    """

    permanent = True


class QueueTrouble(QueueError):
    """No mail of the queue can be worked on now: its directory is not writable, its disk is full, its server away.

    Says nothing about any mail, and costs none an attempt.  Cure: the text names it; the queue is tried again.
    """


class NoSuchMail(QueueError, LookupError):
    """There is no mail of this name in the queue; it may have been sent in the meantime."""

    permanent = True


class NotPossible(QueueError):
    """The verb does not fit the state of the mail, e.g. ``release`` of one that is not held."""

    permanent = True


class KeyTaken(QueueError):
    """The key of a mail that is put into a queue is another mail's; ``message_id`` is that one's.

    ``send()`` returns that Message-Id; callers of a queue itself catch this.
    """

    permanent = True

    def __init__(self, key: str, message_id: str) -> None:
        super().__init__(f"the key {key!r} is that of the mail {message_id}")
        self.key = key
        self.message_id = message_id


class KeyInUse(QueueError):
    """Another transaction has sent a mail with the same key, and has not ended.

    Cure: try the transaction again; by then the other one has committed, and its Message-Id is returned, or it has
    aborted, and the key is free.  What ``send()`` and the vote raise is a `transaction.interfaces.TransientError` as
    well, so everything that tries transactions again does that.
    """


class LeaseLost(QueueError):
    """Another processor took the message over; it must not be sent by this one."""


# --- what a relay says ----------------------------------------------------------------------------------------


class RelayError(MailError, smtplib.SMTPException, ConnectionError):
    """The relay could not be used: not reached, greeting, EHLO, TLS or login failed.

    ``code`` is the SMTP reply code or None.  Says nothing about any message.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code
