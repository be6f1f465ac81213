"""Tests of ``zope.sendmail.maildrop``."""
