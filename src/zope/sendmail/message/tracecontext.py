"""The trace that a mail belongs to, as it travels with the envelope: W3C Trace Context, *traceparent* and *tracestate*.

The program that hands the mail over writes it, the one that sends reads it; it never becomes part of the mail.  Pure;
what is none is no trace, since a mail must not suffer by it.
"""

from __future__ import annotations

import re

# W3C Trace Context, 3.2.2; the version is 00, a later one may be longer.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# 3.3.1; a list of this length has to be passed on.
_STATE = re.compile(r"[\x20-\x7e]{1,512}")


def trace_context(parent: str, state: str = "") -> str:
    """Return the one text that an envelope has of a trace; empty if `parent` is no traceparent.

    :param parent: the header field ``traceparent``
    :param state: the header field ``tracestate``
    """
    if not _PARENT.fullmatch(parent):
        return ""
    state = state.strip()
    return f"{parent} {state}" if _STATE.fullmatch(state) else parent


def parent_and_state(text: str) -> tuple[str, str]:
    """Return what `trace_context` was made of; two empty texts for anything else."""
    parent, _, state = text.partition(" ")
    parent, _, state = trace_context(parent, state).partition(" ")
    return parent, state
