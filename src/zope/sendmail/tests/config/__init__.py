"""Tests of ``zope.sendmail.config``."""
