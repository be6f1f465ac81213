"""Tests of ``zope.sendmail.queue.maildir``."""
