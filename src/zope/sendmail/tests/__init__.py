"""The tests of zope.sendmail."""
