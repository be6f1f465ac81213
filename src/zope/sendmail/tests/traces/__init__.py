"""Tests of `zope.sendmail.traces`."""
