"""Tests of ``zope.sendmail.queue.spool``."""
