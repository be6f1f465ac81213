"""Tests of ``zope.sendmail.smtp.auth``."""
