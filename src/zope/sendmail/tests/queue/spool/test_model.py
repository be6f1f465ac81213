"""A spool and the queue in memory do the same, with mail of ours and with files that other programs drop there."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import put
from zope.sendmail.queue.spool.queue import SpoolQueue
from zope.sendmail.testing.contracts.situation import SCHEDULE, ManualClock
from zope.sendmail.tests.support.layers import Properties, in_layer
from zope.sendmail.tests.support.twoqueues import STEPS, TwoQueues


def _spool(path: str, clock: ManualClock) -> Any:
    os.makedirs(path, mode=0o700, exist_ok=True)
    return SpoolQueue(path, schedule=SCHEDULE, clock=clock)


class SpoolAndModel(TwoQueues):
    make = staticmethod(_spool)

    @rule(target=TwoQueues.mails, recipients=st.integers(1, 3))
    def drop(self, recipients: int) -> Any:
        """Another program writes a file in MaildropHost's format, as it does: under another name first."""
        self.number += 1
        identifier = f"{self.number}@example.org"
        self.sent_at[identifier] = self.clock.time()
        who = tuple(f"{chr(97 + each)}@example.com" for each in range(recipients))
        text = f"Message-Id: <{identifier}>\nSubject: x\n\nText\n".encode()
        written, name = f"{self.path}.written", os.path.join(self.path, str(self.number))
        with open(written, "wb") as file:
            file.write(f"##To:{','.join(who)}\n##From:sender@example.org\n".encode() + text)
        long_ago = self.clock.time() - 60.0
        os.utime(written, (long_ago, long_ago))
        os.rename(written, name)
        put(self.model, [Envelope("sender@example.org", who)], text)
        self.clock.advance(60.0)  # the next look at the directory is due
        return identifier


ASpool: Any = SpoolAndModel.TestCase
ASpool.settings = STEPS


load_tests = in_layer(Properties)
