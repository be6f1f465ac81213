"""SMTP AUTH (RFC 4954): which mechanism is asked for, and what each of them says."""
