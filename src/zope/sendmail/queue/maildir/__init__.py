"""The queue in a Maildir, for any number of processes on one host."""

from zope.sendmail.queue.maildir.queue import MaildirQueue

__all__ = ["MaildirQueue"]
