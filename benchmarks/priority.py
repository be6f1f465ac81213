"""What a flood of low mail costs mail of high priority, and mail that is to leave at a certain moment.

A Maildir queue is filled with low mail in one transaction, and drained through a relay on this host.  While that lasts,
one high mail is committed every tenth of a second, and mails leave at whole seconds.  The same with normal mail alone
shows what an urgent mail waits for without priorities.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.sender import MailReader
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.relayscript import ReceivedMail

_TEXT = b"Subject: x\n\n" + b"text " * 400 + b"\n"

#: Seconds between two urgent mails, and how many mails leave at each of how many moments.
_EVERY, _AT_ONCE, _MOMENTS = 0.1, 20, 4


class TimedRelay(Relay):
    """A relay that notes when it took which mail."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, float] = {}

    def took(self, mail: ReceivedMail) -> None:
        """Note the moment."""
        self.taken[mail.recipients[0]] = time.time()
        super().took(mail)


def put(queue: MaildirQueue, recipients: list[str], terms: Terms) -> None:
    """Commit a mail to each recipient."""
    staged = queue.stage()
    for each in recipients:
        staged.add(Envelope("s@example.org", (each,), terms=terms), _TEXT)
    staged.prepare()
    staged.commit()


def measure(count: int, flood: Priority, urgent: Priority, connections: int) -> dict[str, float]:
    """Return how long urgent mail waited, and how late planned mail was, in milliseconds."""
    with tempfile.TemporaryDirectory() as directory, TimedRelay() as relay:
        queue = MaildirQueue(os.path.join(directory, "queue"))
        put(queue, [f"flood{n}@example.org" for n in range(count)], Terms(priority=flood))
        flush(600.0)  # what is to be measured begins when they stand in files of their own
        start = int(time.time()) + 2
        for moment in range(start, start + _MOMENTS):
            names = [f"planned{moment}.{n}@example.org" for n in range(_AT_ONCE)]
            put(queue, names, Terms(not_before=float(moment), priority=urgent))
        reader = MailReader(queue.location, relay.host, relay.port, concurrency=connections)
        reader.start()
        committed: dict[str, float] = {}
        while len([who for who in list(relay.taken) if who.startswith("flood")]) < count:
            name = f"urgent{len(committed)}@example.org"
            put(queue, [name], Terms(priority=urgent))
            committed[name] = time.time()
            time.sleep(_EVERY)
        reader.finish(60)
        began = time.time()
        while len(relay.taken) < count + len(committed) + _MOMENTS * _AT_ONCE and time.time() < began + 30:
            time.sleep(0.1)
        waits = sorted(1000 * (relay.taken[who] - at) for who, at in committed.items() if who in relay.taken)
        late = [
            1000 * (at - int(who[7:].partition(".")[0])) for who, at in relay.taken.items() if who.startswith("planned")
        ]
        queue.close()
    return {
        "urgent": len(waits),
        "median": statistics.median(waits),
        "95 %": waits[int(0.95 * len(waits))],
        "worst": waits[-1],
        "planned": len(late),
        "earliest": min(late),
        "late, median": statistics.median(late),
        "late, worst": max(late),
    }


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=20_000, help="in the flood (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="to the relay (default: %(default)s)")
    options = parser.parse_args()
    for flood, urgent in ((Priority.LOW, Priority.HIGH), (Priority.NORMAL, Priority.NORMAL)):
        figures = measure(options.mails, flood, urgent, options.connections)
        words = ", ".join(f"{name} {value:.0f}" for name, value in figures.items())
        sys.stdout.write(f"flood of {options.mails} {flood} mails, {urgent} ones beside them (ms): {words}\n")


if __name__ == "__main__":
    main()
