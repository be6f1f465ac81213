"""What the exit status of a sendmail program says about the mail.  Pure.

The codes are those of <sysexits.h>, which sendmail and its successors keep.  What is not sure is temporary.
"""

from __future__ import annotations

import re

from zope.sendmail.lifecycle.outcome import Answer, Reply, printable

#: Code: name, answer, and whether the words of the program may make a rejection of it: these codes also stand for
#: "something went wrong", but an enhanced status code of class 5 (RFC 3463) is meant.
_TABLE = {
    65: ("EX_DATAERR", Answer.REJECTED, False),
    66: ("EX_NOINPUT", Answer.DEFERRED, True),
    67: ("EX_NOUSER", Answer.REJECTED, False),
    68: ("EX_NOHOST", Answer.REJECTED, False),
    69: ("EX_UNAVAILABLE", Answer.DEFERRED, True),
    70: ("EX_SOFTWARE", Answer.DEFERRED, True),
    75: ("EX_TEMPFAIL", Answer.DEFERRED, False),
    76: ("EX_PROTOCOL", Answer.DEFERRED, True),
}

#: The program or this host is in trouble, not only this mail: it is deferred, and the others wait.
_FAULTS = {
    64: "EX_USAGE",
    71: "EX_OSERR",
    72: "EX_OSFILE",
    73: "EX_CANTCREAT",
    74: "EX_IOERR",
    77: "EX_NOPERM",
    78: "EX_CONFIG",
    126: "not executable",  # a shell script that calls the program (POSIX, 2.8.2), likewise 127
    127: "not found",
}

#: What Exim says of a message that it does not want, with the status 1 that it has for everything.
_REJECTED = re.compile(r"exim\S*: message rejected\b")

# The subject is 0 to 7 (RFC 3463, 3), else it is the number of a version or an IP address.
_ENHANCED = re.compile(r"(?<![\d.])([45]\.[0-7]\.\d{1,3})(?![\d.])")


def reply_of(status: int, output: str | bytes) -> tuple[Reply, bool]:
    """Return what a program meant that ended with `status` (negative: a signal), and whether it is itself in trouble.

    The last line of `output` is the text of the reply.
    """
    words = _last_line(output)
    if status == 0:
        return Reply(Answer.ACCEPTED, words or "the program has taken it"), False
    if status < 0 or 128 < status <= 192:  # a shell adds 128 to the signal that ended its child
        number = -status if status < 0 else status - 128
        return Reply(Answer.UNKNOWN, _sentence(f"the program was ended by signal {number}", words)), True
    match = _ENHANCED.search(words)
    enhanced = match[1] if match else None
    if status in _FAULTS:
        return Reply(
            Answer.DEFERRED, _sentence(f"exit status {status} ({_FAULTS[status]})", words), None, enhanced
        ), True
    name, answer, words_decide = _TABLE.get(status, ("", Answer.DEFERRED, True))
    if words_decide and ((enhanced or "").startswith("5") or _REJECTED.match(words)):
        answer = Answer.REJECTED
    code = f"exit status {status} ({name})" if name else f"exit status {status}"
    return Reply(answer, _sentence(code, words), None, enhanced), False


def _sentence(what: str, words: str) -> str:
    return f"{what}: {words}" if words else what


def _last_line(output: str | bytes) -> str:
    text = output.decode("utf-8", "backslashreplace") if isinstance(output, bytes) else output
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
