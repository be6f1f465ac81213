"""Products.MaildropHost's spool, configuration file and daemon, on this package's queue and processor.

``docs/howto/maildrop.rst`` is for people who run it.
"""
