"""Tests of ``zope.sendmail.reporting``."""
