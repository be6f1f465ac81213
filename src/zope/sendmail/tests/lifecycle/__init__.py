"""Tests of ``zope.sendmail.lifecycle``."""
