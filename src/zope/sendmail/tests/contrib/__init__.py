"""Tests of ``zope.sendmail.contrib``."""
