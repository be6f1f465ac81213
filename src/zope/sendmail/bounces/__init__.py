"""Bounces: about whom one is, whether for good, and whether it is genuine; and what follows from it.

All that a bounce says can be forged, but for the address to which it comes: a signed return path
(`zope.sendmail.message.verpkey`).  Only such a one changes anything.  Needs the extra ``bounces`` (flufl.bounce).
"""
