"""Tests of ``zope.sendmail.processor``."""
