"""Tests of ``zope.sendmail.smtp``."""
