"""`zope.sendmail.system.hostname`."""

from __future__ import annotations

import unittest
from unittest import mock

from zope.sendmail.system.hostname import host_name


class AHost(unittest.TestCase):
    def test_may_be_called_anything(self) -> None:
        """What cannot stand in a Message-Id or a file name is left out, so that mail can be sent from it."""
        for name in ("m\xfcller", "my host", "a>b", "x\udce9", ""):
            with self.subTest(name), mock.patch("socket.gethostname", return_value=name):
                self.assertRegex(host_name(), r"\A[A-Za-z0-9.-]+\Z")


if __name__ == "__main__":
    unittest.main()
