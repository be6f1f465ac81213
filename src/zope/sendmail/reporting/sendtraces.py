"""Where the traces of mail begin: `send` of a delivery is told to a tracer, which may give the mail a context.

The attempts at a mail are told to observers (`zope.sendmail.reporting.observers`), with that context.  As long as no
program traces, nothing is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece


class HandOver(Protocol):
    """One call of ``send()``."""

    def context(self, message_id: str, size: int, count: int) -> str:
        """Take note of what is handed over, and return the context that goes with it.

        :param message_id: without brackets
        :param size: bytes of the message
        :param count: of the mails that it becomes
        :returns: see `zope.sendmail.message.tracecontext.trace_context`; empty for none
        """


class SendTracer(Protocol):
    """A program that traces ``send()``.  Concurrency: called by every thread that sends."""

    def sending(self, destination: str) -> AbstractContextManager[HandOver]:
        """Return what is entered while a mail is handed over.

        :param destination: the location of the queue; empty for direct delivery
        """


_tracer: SendTracer | None = None


def trace_with(tracer: SendTracer | None) -> None:
    """Tell `tracer` of every ``send()`` of this process from now on; None: no program."""
    global _tracer
    _tracer = tracer


def is_traced() -> bool:
    """Return whether any program traces."""
    return _tracer is not None


_NOTHING: AbstractContextManager[HandOver | None] = nullcontext()


def sending(destination: str) -> AbstractContextManager[HandOver | None]:
    """Return what a delivery enters for one ``send()``; gives None if no program traces."""
    return _NOTHING if _tracer is None else _tracer.sending(destination)


def traced(
    span: HandOver | None, envelopes: list[Envelope], message: Sequence[Piece], message_id: str
) -> list[Envelope]:
    """Return the envelopes of a message with the context of the trace that they belong to, if there is one."""
    if span is None:
        return envelopes
    context = span.context(message_id, sum(map(len, message)), len(envelopes))
    return [replace(each, trace=context) for each in envelopes]
