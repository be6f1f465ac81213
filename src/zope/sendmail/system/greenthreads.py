"""Whether threads are threads here: eventlet can put something else in their place, with which no queue can be drained.

Its ``select`` has no ``poll``, its ``os`` lets a read wait for ever where threads are those of the system, and waiting
for one of these stops all green ones.  gevent has all of it.
"""

from __future__ import annotations

import sys

from zope.sendmail.errors import QueueError


class GreenThreads(QueueError, RuntimeError):
    """This process cannot drain a queue, because eventlet has replaced its threads; it can put mail into one.

    Cure: use a `MailWriter` or a queued delivery with ``start="never"``, and let another process send.
    """


def refuse_green_threads() -> None:
    """Refuse to drain a queue where eventlet has replaced threads, ``select`` or ``os``.

    :raises GreenThreads: which says what to do instead.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("thread", "select", "os"))):
        raise GreenThreads(
            "eventlet has replaced the threads of this process, and with its own no queue can be drained; put the mail "
            "into the queue here, with a MailWriter or start='never', and let another process send it, such as "
            "'zope-sendmail --daemon'"
        )
