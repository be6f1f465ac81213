"""What the README shows does what it says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import zope.sendmail.sender  # noqa: F401 - loaded before a test takes its place among the modules
from zope.sendmail.interfaces import InvalidMail
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.layers import Processes, in_layer

_Handler = Callable[..., Any]

TESTS = os.path.dirname(os.path.dirname(__file__))
README = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "README.txt")

#: Serves the deployment example as a WSGI server would, sends a mail in a transaction, and says when it is gone.
PROGRAM = """
import sys
import transaction
from zope.app.wsgi import getWSGIApplication
application = getWSGIApplication("zope.conf")
from zope.component import getUtility
from zope.sendmail.interfaces import IMailDelivery
delivery = getUtility(IMailDelivery)
delivery.send("shop@example.org", ["aborted@example.org"], "Subject: no\\n\\nno\\n")
transaction.abort()
delivery.send("shop@example.org", ["jane@example.org"], "Subject: yes\\n\\nyes\\n")
transaction.commit()
sys.stdin.readline()
"""


class TheDeploymentExample(unittest.TestCase):
    def setUp(self) -> None:
        try:
            import zope.app.wsgi  # noqa: F401 - only whether it is there
        except ImportError as error:
            self.skipTest(f"zope.app.wsgi is not installed: {error}")
        if not os.path.exists(README):
            self.skipTest("the README is not beside the package: this is not a checkout")
        with open(README, encoding="utf-8") as stream:
            self.readme = stream.read()

    def example(self, name: str) -> str:
        """The literal block behind the mention of a file."""
        match = re.search(rf"``{re.escape(name)}``[^\n]*::\n\n((?:(?:    [^\n]*)?\n)+)", self.readme)
        assert match is not None, name
        return textwrap.dedent(match[1])

    def test_serves_and_sends(self) -> None:
        """site.zcml and zope.conf as they stand there, but for paths, relay and login."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        relay = self.enterContext(Relay())
        conf = self.example("zope.conf").replace("/var/lib/shop/mail", os.path.join(directory, "mail"))
        conf = conf.replace("mail.example.org", relay.host).replace("port 587", f"port {relay.port}")
        conf = "".join(line for line in conf.splitlines(True) if not re.search("username|password-file", line))
        zcml = self.example("site.zcml").replace('<include package="your.application" />', "")
        for name, text in ("zope.conf", conf), ("site.zcml", zcml):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as stream:
                stream.write(text)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        try:
            relay.wait_until(lambda: relay.mails or process.poll() is not None, 120)
        finally:
            output = process.communicate("\n", timeout=120)[0]
        self.assertEqual([mail.recipients for mail in relay.mails], [("jane@example.org",)], output)
        self.assertEqual(process.returncode, 0, output)


class TheTable(unittest.TestCase):
    def test_names_every_attribute(self) -> None:
        """No directive has an attribute that the README does not name, and none that it names is missing."""
        if not os.path.exists(README):
            self.skipTest("the README is not beside the package: this is not a checkout")
        from zope.sendmail.zcml.schema import IDirectDeliveryDirective, IQueuedDeliveryDirective, ISMTPMailerDirective

        with open(README, encoding="utf-8") as stream:
            table = re.split(r"\n=+  =+\n", stream.read())[1]
        rows = re.split(r"^``mail:(\w+)``", table, flags=re.MULTILINE)[1:]
        self.assertEqual(len(rows), 6)
        for name, text in zip(rows[::2], rows[1::2], strict=True):
            schema = {
                "smtpMailer": ISMTPMailerDirective,
                "queuedDelivery": IQueuedDeliveryDirective,
                "directDelivery": IDirectDeliveryDirective,
            }[name]
            named = set(re.findall(r"\w+", text))
            attributes = set(schema.names(all=True)) - {"processorThread"}
            self.assertEqual(attributes - named, set(), name)


class TheTableOfFaults(unittest.TestCase):
    def test_names_tests_that_exist(self) -> None:
        """Every method and class that docs/faults.rst names is there, in the module it names."""
        path = os.path.join(os.path.dirname(README), "docs", "faults.rst")
        if not os.path.exists(path):
            self.skipTest("the docs are not beside the package: this is not a checkout")
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        everything = "".join(path.read_text(encoding="utf-8") for path in Path(TESTS).rglob("test_*.py"))
        sources = {path.stem for path in Path(TESTS).rglob("test_*.py")}
        names = set(re.findall(r"\btest_\w+", text)) - sources
        self.assertGreater(len(names), 30)
        self.assertEqual({name for name in names if f"def {name}(" not in everything}, set())
        for number in [f"A{n}" for n in range(1, 14)] + [f"B{n}" for n in range(1, 20)] + ["D"]:
            self.assertRegex(text, rf"(?m)^{number} ")


class Application:
    """What the README's example uses of FastAPI."""

    def __init__(self, lifespan: Any) -> None:
        self.lifespan = lifespan
        self.handlers: dict[type[Exception], _Handler] = {}

    def exception_handler(self, kind: type[Exception]) -> Callable[[_Handler], _Handler]:
        """Keep the function, for who calls in the place of the framework."""
        return lambda function: self.handlers.setdefault(kind, function)

    def post(self, route: str) -> Callable[[_Handler], _Handler]:
        """The function stays what it is."""
        return lambda function: function


class TheProgramWithoutZope(unittest.TestCase):
    def example(self, begin: str, end: str) -> str:
        """What stands between these in the README."""
        if not os.path.exists(README):
            self.skipTest("the README is not beside the package: this is not a checkout")
        with open(README, encoding="utf-8") as stream:
            return textwrap.dedent(stream.read().partition(begin)[2].partition(end)[0])

    def test_sends_as_a_script(self) -> None:
        """To its end: the mail has left then."""
        relay = self.enterContext(Relay())
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mail")
        source = self.example(" A script::\n", "\nA web").replace("/var/lib/shop/mail", path)
        exec(source.replace('"mail.example.org"', f'"{relay.host}", {relay.port}'), {})
        self.assertEqual([mail.recipients for mail in relay.mails], [("jane@example.org",)])

    def loaded(self, source: str) -> dict[str, Any]:
        """The module with this text, where the framework is what little of it is used."""
        framework: Any = types.ModuleType("fastapi")
        framework.FastAPI = Application
        framework.responses = types.ModuleType("fastapi.responses")
        framework.responses.JSONResponse = lambda content, status_code: (content, status_code)
        module: dict[str, Any] = {}
        with mock.patch.dict(sys.modules, {"fastapi": framework, "fastapi.responses": framework.responses}):
            exec(source, module)
        self.addCleanup(module["sender"].stop)
        return module

    def test_is_that_of_the_readme(self) -> None:
        """The module in the README sends, with a web framework that only knows what is used of it."""
        text = self.example("``app.py``::\n", "\n``send()``")
        first, second = self.enterContext(Relay()), self.enterContext(Relay())
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mail")
        source = text.replace("/var/lib/shop/mail", path)
        source = source.replace('"mail.example.org"', f'"{first.host}", {first.port}')
        source = source.replace("news.example.org:25", f"{second.host}:{second.port}")
        source = source.replace('hostname="news.example.org"', f'hostname="{second.host}", port={second.port}')
        module = self.loaded(source)

        async def serve() -> str:
            async with module["app"].lifespan(None):
                self.assertTrue(module["sender"].running())
                module["news"](["a@example.com", "b@example.com"], "Subject: News\n\nGood ones.\n")
                with self.assertRaises(InvalidMail) as caught:
                    module["order"](6, "jane@example.org\n")
                content, status = await module["app"].handlers[InvalidMail](None, caught.exception)
                self.assertEqual((content, status), ({"detail": str(caught.exception)}, 422))
                return str(module["order"](7, "jane@example.org"))

        message_id = asyncio.run(serve())
        self.assertEqual(module["sender"].status(message_id).standing, "sent")
        self.assertEqual([mail.recipients for mail in first.mails], [("jane@example.org",)])
        senders = {mail.sender for mail in second.mails}
        self.assertEqual(senders, {f"news+{who}=example.com@example.org" for who in "ab"})


load_tests = in_layer(Processes)
