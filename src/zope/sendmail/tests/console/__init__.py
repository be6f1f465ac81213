"""Tests of ``zope.sendmail.console``."""
