"""What an operator can do about a relay that cannot be used, by what it or the system said.  Pure."""

from __future__ import annotations

import re

from zope.sendmail.lifecycle.outcome import Reply

#: Patterns of what was said, and what to do; the first that fits counts.
_CURES = [
    (
        r"token (command|file) ",
        "No token was to be had, so the relay was not asked: do by hand, as the user that sends, what token_command or "
        "token_file says; a command that is not found wants its whole path.",
    ),
    (
        r"connection refused|errno 111\b",
        "Nothing listens there: start the relay, or correct its hostname and port.",
    ),
    (
        r"name or service not known|nodename nor servname|no address associated|name resolution|getaddrinfo",
        "The name of the relay is not known: correct the hostname, or look after the resolver of this machine.",
    ),
    (
        r"hostname mismatch|not valid for|doesn't match|ip address mismatch",
        "Its certificate is for another name: set the hostname that stands in the certificate.",
    ),
    (
        r"certificate has expired|not yet valid",
        "Its certificate is out of date: have the relay's renewed, and look at the clock of this machine.",
    ),
    (
        r"certificate|self.signed",
        "Its certificate is not trusted: name the CA that signed it with cafile, or correct the hostname.",
    ),
    (
        r"does not offer starttls|does not offer tls|wrong.version.number|tls|ssl",
        "The two do not agree about TLS: compare the setting tls and the port (465: implicit, 587: required); "
        "for a relay of your own that has none, say tls=never.",
    ),
    (
        r"timed out|timeout|errno 110\b",
        "It does not answer: look for a firewall between here and there, and at the load of the relay.",
    ),
    (
        r"unreachable|no route|errno 1(01|13)\b",
        "There is no way to it: look after the network of this machine.",
    ),
    (
        r"closed|hung up|reset by peer|broken pipe",
        "It hangs up: look into the relay's log; it may want TLS, a login, or fewer connections.",
    ),
]

_BY_CODE = {
    535: "The login is refused: correct username and password (of a token: its scope, and whether the account may send "
    "by SMTP); a daemon with a password file tries again by itself when the file changes.",
    534: "The login is refused: the account needs another mechanism, or a password for applications.",
    530: "The relay wants a login, or TLS first: set username and password, and tls=required.",
    538: "The relay wants TLS before the login: set tls=required.",
    454: "The relay cannot check logins now: look at the relay.",
    432: "The account needs a new password, or the relay takes no mail now: look at the relay, or ask who runs it.",
    421: "The relay is busy or goes down: look at the relay; fewer connections (concurrency) may help.",
}

_ELSE = "Look at what the relay says and at its log; 'zope-sendmail check' tries it step by step."


def cure_of(fault: Reply) -> str:
    """Return what to do about a relay of which this was said."""
    if fault.code in _BY_CODE:
        return _BY_CODE[fault.code]
    words = str(fault).casefold()
    return next((cure for pattern, cure in _CURES if re.search(pattern, words)), _ELSE)
