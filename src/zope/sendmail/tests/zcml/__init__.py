"""Tests of ``zope.sendmail.zcml``."""
