"""SMTP without a socket: commands out, replies in.  Pure."""
