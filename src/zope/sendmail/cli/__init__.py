"""The commands ``zope-sendmail`` and ``zope-sendmail queue VERB``."""
