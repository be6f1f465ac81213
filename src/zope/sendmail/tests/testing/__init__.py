"""Tests of ``zope.sendmail.testing``."""
