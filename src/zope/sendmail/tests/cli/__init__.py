"""Tests of ``zope.sendmail.cli``."""
