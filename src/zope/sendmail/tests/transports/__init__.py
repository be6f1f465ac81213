"""Tests of ``zope.sendmail.transports``."""
