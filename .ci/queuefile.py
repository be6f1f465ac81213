"""The page docs/reference/queuefile.rst: each line at the head of a queue file, as the code writes and reads it.

`references` writes it.  The example is what `envelope_lines` says; a line that the code knows and this module does not,
or the other way round, is an error, and so is an example that is not read back as it was meant.
"""

import io
import textwrap
from collections.abc import Iterator
from dataclasses import replace

from zope.sendmail.message.envelope import CPS_OPTIONS, DROPPED, OPTIONS, Envelope, envelope_lines, read_envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import LONGEST_KEY, NAMES, Marks, Priority, Terms, read_moment

#: What each line says.
MEANINGS = {
    "X-Zope-From": "The envelope sender, always first. Empty for the null reverse-path, as reports have it.",
    "X-Zope-To": "The envelope recipients, always second: bare addresses with a comma and a blank between them.",
    "X-Zope-Mailer": "The mailer that the mail asks for, by its name (`zope.sendmail.message.relayname`).",
    "X-Zope-Hostname": "The relay that the mail asks for, instead of a mailer; with X-Zope-Port.",
    "X-Zope-Port": "Its port; 25 if the line is missing.",
    "X-Zope-Username": "Read only: written by CPSMailAccess, and used only with ``legacyPasswords``.",
    "X-Zope-Password": "Read only, likewise.",
    "X-Zope-Trace": "*traceparent* and *tracestate* of W3C Trace Context, with a blank between. Nonsense is ignored.",
    "X-Zope-Not-Before": "The moment before which the mail does not leave, in UTC.",
    "X-Zope-Expires": "The moment at which it is given up, in UTC.",
    "X-Zope-Priority": "``high`` or ``low``; without the line ``normal``.",
    "X-Zope-Key": f"The key, at most {LONGEST_KEY} printable characters: of two mails with one key there is one.",
    "X-Zope-Key-Until": "The moment until which the key is kept, in UTC.",
    "X-Zope-Suppressed": "Those of the recipients that were on the suppression list when the mail was handed over.",
    "X-Zope-Envelope": "``end``: the message begins with the next line.",
}

#: In the examples.
TERMS = Terms(
    read_moment("2026-12-01T08:00:00Z"), read_moment("2026-12-02T08:00:00Z"), Priority.HIGH, "order 17",
    read_moment("2026-12-08T08:00:00Z"), ("two@example.org",),
)  # fmt: skip
PLAIN = Envelope("shop@example.org", ("one@example.org", "two@example.org"))
FULL = replace(
    PLAIN,
    relay=RelayName(hostname="relay.example.org", port=25),
    trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=value",
    terms=TERMS,
)

PAGE = """\
==========
Queue file
==========

A file in ``new/`` of a queue is the mail: lines that are the envelope, and behind them the message, octet for octet.
This page is made from the code. What a crash can leave, the names and the other files are in
:doc:`/explanation/internals`.

The usual mail has two lines, as zope.sendmail 3.5 to 7.3 write and read them:

.. tested by: .ci/queuefile.py

.. code-block:: text

{plain}

All lines that there can be, of a mail that asks for a relay, belongs to a trace, and has terms:

.. tested by: .ci/queuefile.py

.. code-block:: text

{full}

Lines are in UTF-8 and end with LF; one without an end, or of more than 16 MiB, is no envelope. Further lines count
only if they end with ``X-Zope-Envelope: end``, at most 100 later, or if they are CPSMailAccess's four, in their order
({cps}): so what a message itself begins with is never taken for envelope. A file with a line whose name is unknown,
or whose value cannot be, is set aside, as is one without recipients. An address that is none is reported as rejected,
and the others get the mail.

Lines
=====

{lines}
Marks in the name
=================

A mail with a class or a time says so behind the usual end of its name as well, so that no processor has to read the
file to know its turn: ``{marks}``. ``P`` is ``h`` or ``l``, ``T`` the time before which it does not leave, ``E`` the
one at which it is given up, in seconds since the epoch. What counts is the file.

Files of others
===============

A file whose first line begins with ``{dropped}`` is one of MaildropHost: its envelope ends with the line by which
``##To:`` and ``##From:`` are both known, and lines with other keys right behind it are passed over. Files of
CPSMailAccess have its six lines; ``None`` stands for nothing.
"""


def queue_file_page() -> str:
    """Return the page.  Raises `SystemExit` where this module and the code differ."""
    known = {"X-Zope-From", "X-Zope-To", "X-Zope-Envelope", *OPTIONS, *NAMES}
    if known != MEANINGS.keys():
        raise SystemExit(f".ci/queuefile.py and the code differ in {', '.join(sorted(known ^ MEANINGS.keys()))}")
    return PAGE.format(
        plain=shown(PLAIN),
        full=shown(FULL),
        cps=", ".join(f"``{name.decode().removesuffix(':')}``" for name in CPS_OPTIONS),
        lines="\n".join(entries()),
        marks=f"1796000000.4711.host.123{Marks.of(TERMS)}",
        dropped=DROPPED.decode(),
    )


def shown(envelope: Envelope) -> str:
    """Return a queue file with this envelope, after having read it back."""
    text = envelope_lines(envelope, b"Subject: x\n\n")
    if read_envelope(io.BytesIO(text + b"Subject: x\n\n")) != envelope:
        raise SystemExit(f"this is not read as it was written: {text!r}")
    return textwrap.indent(text.decode() + "...the message, octet for octet...", "   ")


def entries() -> Iterator[str]:
    """Give each line with its meaning."""
    for name, meaning in MEANINGS.items():
        yield f"``{name}``"
        yield textwrap.fill(meaning, 116, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
        yield ""
