"""Tests of ``zope.sendmail.demo``."""
