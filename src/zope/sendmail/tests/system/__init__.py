"""Tests of ``zope.sendmail.system``."""
