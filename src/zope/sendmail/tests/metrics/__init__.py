"""Tests of ``zope.sendmail.metrics``."""
