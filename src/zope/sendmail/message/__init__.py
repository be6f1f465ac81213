"""Envelope, addresses and headers of one mail, and which relay gets it.  Pure."""
