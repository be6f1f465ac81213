"""Tests of ``zope.sendmail.message``."""
