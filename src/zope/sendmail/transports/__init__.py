"""Ways out other than SMTP with one relay: a local program, files, one address for all mail, several relays.

``docs/howto/mailers.rst`` says which is for what.
"""
