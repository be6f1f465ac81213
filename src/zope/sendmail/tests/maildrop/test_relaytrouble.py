"""What ``maildrop status`` says about mail whose relay cannot be used; the tab in the ZMI is the console."""

from __future__ import annotations

import os
import tempfile
import time
import unittest

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.maildrop.script import waiting_words
from zope.sendmail.queue import open_queue


class MailBehindARelay(unittest.TestCase):
    """A spool with a dropped mail, and a daemon that has told that its relay refuses the login."""

    def setUp(self) -> None:
        spool = self.enterContext(tempfile.TemporaryDirectory())
        with open(os.path.join(spool, "one"), "w", encoding="utf-8") as file:
            file.write("##To:one@example.org\n##From:shop@example.org\nSubject: x\n\nx\n")
        os.utime(os.path.join(spool, "one"), (1e9, 1e9))
        self.queue = open_queue(f"spool:{spool}")
        self.addCleanup(self.queue.close)
        self.queue.claim(0)
        now = time.time()
        fault = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")
        relay = RelayState("default", "relay:25", fault, now - 3600, now + 40, now, 9)
        self.queue.report(ProcessorState(os.getpid(), "here", now, now, relays=(relay,)))

    def test_is_explained_by_status(self) -> None:
        """In the line that says how much mail there is."""
        said = waiting_words(self.queue.admin)
        self.assertIn("mails: 1 ready", said)
        self.assertIn("535 5.7.8 authentication failed", said)


if __name__ == "__main__":
    unittest.main()
