"""Tests of ``zope.sendmail.queue``."""
