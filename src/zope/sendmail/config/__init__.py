"""What can be set, as frozen values; where settings come from: ZCML, zope.conf, ini, command line."""
