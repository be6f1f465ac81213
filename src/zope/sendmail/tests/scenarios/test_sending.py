"""What docs/howto/sending.rst says of when mail leaves and in which order is so."""

from __future__ import annotations

import os
import re
import tempfile
import unittest

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.scenarios.test_readme import page
from zope.sendmail.tests.support.layers import Servers, in_layer


class ThePage(unittest.TestCase):
    def test_has_a_program_that_runs(self) -> None:
        """Two mails leave, one waits for its time, and the second with a key is the first."""
        relay = self.enterContext(Relay())
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        source = page("examples/sending.py").replace('"mail-queue"', repr(path))
        exec(source.replace('"mail.example.org", 25', f'"{relay.host}", {relay.port}'), {})
        self.assertEqual(sorted(mail.recipients for mail in relay.mails), [("jane@example.org",), ("joe@example.org",)])
        [mail] = QueuedMailDelivery(path).queue.admin.mails()
        self.assertEqual((mail.state, mail.envelope.recipients), (State.SCHEDULED, ("jim@example.org",)))

    def test_names_what_a_directive_has(self) -> None:
        """Each attribute of its example is one, and takes that value."""
        try:
            from zope.sendmail.zcml.schema import IQueuedDeliveryDirective
        except ImportError as error:
            self.skipTest(f"zope.configuration is not installed: {error}")
        [example] = re.findall(r"<mail:queuedDelivery (.*?)/>", page("howto/sending.rst"), re.DOTALL)
        found = re.findall(r'(\w+)="([^"]*)"', example)
        self.assertGreater(len(found), 3)
        for name, value in found:
            if name not in ("name", "mailer", "queuePath"):
                IQueuedDeliveryDirective[name].fromUnicode(value)


load_tests = in_layer(Servers)
