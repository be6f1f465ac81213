"""What the README shows does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import os
import re
import runpy
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
from zope.sendmail.tests.support.documents import blocks
from zope.sendmail.tests.support.layers import Processes, in_layer

_Handler = Callable[..., Any]

TESTS = os.path.dirname(os.path.dirname(__file__))
README = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "README.txt")

#: The shop of the tutorial, asked as a server would: for its page, for an order, and for one that cannot be confirmed.
PROGRAM = """
import io, sys
sys.path.insert(0, ".")
import shop

def ask(method, body=b""):
    started = []
    environ = {"REQUEST_METHOD": method, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    page = b"".join(shop.application(environ, lambda *head: started.extend(head)))
    print(started[0], page.decode().splitlines()[0])

ask("GET")
ask("POST", b"customer=jane@example.org")
ask("POST", b"customer=jane@@example.org")
ask("POST", b"customer=jim@example.org")
sys.stdin.readline()
"""


def readme() -> str:
    """The text of the README."""
    if not os.path.exists(README):
        raise unittest.SkipTest("the README is not beside the package: this is not a checkout")
    with open(README, encoding="utf-8") as stream:
        return stream.read()


def page(name: str) -> str:
    """The text of one of the docs."""
    path = os.path.join(os.path.dirname(README), "docs", name)
    if not os.path.exists(path):
        raise unittest.SkipTest("the docs are not beside the package: this is not a checkout")
    with open(path, encoding="utf-8") as stream:
        return stream.read()


class WhatAPackageIndexShows(unittest.TestCase):
    def setUp(self) -> None:
        readme()
        try:
            setuptools = importlib.import_module("setuptools")  # it has no types
        except ImportError as error:
            self.skipTest(f"setuptools is not installed: {error}")
        with mock.patch.object(setuptools, "setup") as setup:
            runpy.run_path(os.path.join(os.path.dirname(README), "setup.py"))
        self.said = setup.call_args.kwargs

    def test_has_no_picture_that_lies_beside_it(self) -> None:
        """The README has one; the text begins as it does, and goes on behind it."""
        self.assertIn(".. image:: docs/", readme())
        self.assertNotIn(".. image::", self.said["long_description"])
        self.assertIn("commits.\n\n.. tested by: scenarios.test_readme\n\n::\n", self.said["long_description"])

    def test_names_nothing_twice(self) -> None:
        """An index refuses what does."""
        self.assertCountEqual(self.said["classifiers"], set(self.said["classifiers"]))


class TheTutorialOfZope(unittest.TestCase):
    def setUp(self) -> None:
        try:
            import zope.app.wsgi  # noqa: F401 - only whether it is there
        except ImportError as error:
            self.skipTest(f"zope.app.wsgi is not installed: {error}")
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.relay = self.enterContext(Relay())
        for name in ("site.zcml", "zope.conf", "shop.py"):
            text = page(f"examples/zope/{name}").replace('port="8025"', f'port="{self.relay.port}"')
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as stream:
                stream.write(text.replace('hostname="localhost"', f'hostname="{self.relay.host}"'))

    def test_serves_a_page_and_sends(self) -> None:
        """An order and its mail are there both, or neither."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            cwd=self.directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            self.relay.wait_until(lambda: len(self.relay.mails) == 2 or process.poll() is not None, 120)
        finally:
            output = process.communicate("\n", timeout=300)[0]
        recipients = [mail.recipients for mail in self.relay.mails]
        self.assertEqual(recipients, [("jane@example.org",), ("jim@example.org",)], output)
        self.assertEqual(process.returncode, 0, output)
        for words in (
            "200 OK <!DOCTYPE html>",
            "422 Unprocessable Content",
            "Thank you, jim@example.org! That was order 2.",
        ):
            self.assertIn(words, output)

    def test_can_leave_the_relay_to_zope_conf(self) -> None:
        """As the README and the tutorial show it for a server."""
        shown = readme() + page("tutorials/zope.rst")
        blocks = re.findall(r"^ *<product-config mail>.*?config>$", shown, re.DOTALL | re.MULTILINE)
        self.assertEqual(len(blocks), 2)
        [block] = set(map(textwrap.dedent, blocks))
        block = block.replace("/var/lib/shop/mail", os.path.join(self.directory, "mail"))
        block = block.replace("mail.example.org", self.relay.host).replace("port 587", f"port {self.relay.port}")
        block = "".join(line for line in block.splitlines(True) if not re.search("username|password-file", line))
        path = os.path.join(self.directory, "zope.conf")
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(block)
        path = os.path.join(self.directory, "site.zcml")
        with open(path, encoding="utf-8") as stream:
            text = re.sub(r' (?:hostname|port|queuePath)="[^"]*"', "", stream.read())
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        self.test_serves_a_page_and_sends()


class TheReadme(unittest.TestCase):
    def test_has_a_first_mail(self) -> None:
        """The script sends, and says so; one that cannot be a mail is refused with a sentence."""
        relay = self.enterContext(Relay(users={"shop": "secret"}))
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mail-queue")
        [source] = [block.text for block in blocks("README.txt") if "with MailSender(" in block.text]
        source = source.replace('"mail-queue", "mail.example.org", 587', f'{path!r}, "{relay.host}", {relay.port}')
        source = source.replace('password="secret"', 'password="secret", allow_clear_password=True')
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(source, {})
        self.assertEqual((relay.mails[0].recipients, output.getvalue()), (("jane@example.org",), "sent\n"))
        self.assertRegex(relay.mails[0].data, rb"(?m)^Date: ")
        with self.assertRaisesRegex(SystemExit, "This cannot be a mail: the recipient 'jane@@example.org'"):
            exec(source.replace('["jane@', '["jane@@'), {})

    def test_has_zcml_that_can_be_loaded_alone(self) -> None:
        """As it stands there; the delivery is found without a name."""
        [source] = [block.text for block in blocks("README.txt") if block.text.startswith("<configure")]
        directory = self.enterContext(tempfile.TemporaryDirectory())
        path = os.path.join(directory, "site.zcml")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(source.replace("/var/lib/shop", directory))
        program = (
            "import sys; from zope.configuration.xmlconfig import file; file(sys.argv[1])\n"
            "from zope.component import getUtility; from zope.sendmail.interfaces import IMailDelivery\n"
            "print(getUtility(IMailDelivery).queuePath)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-W", "ignore", "-c", program, path]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(done.stdout, os.path.join(directory, "mail\n"), done.stderr)

    def test_names_pages_that_exist(self) -> None:
        """Each file that it speaks of is there."""
        top = os.path.dirname(README)
        named = set(re.findall(r"\b(?:docs|src)/[\w./-]+\.(?:rst|svg|py)", readme()))
        self.assertGreater(len(named), 12)
        self.assertEqual({name for name in named if not os.path.exists(os.path.join(top, name))}, set())


class TheTableOfFaults(unittest.TestCase):
    def test_names_tests_that_exist(self) -> None:
        """Every method and class that docs/explanation/faults.rst names is there, in the module it names."""
        path = os.path.join(os.path.dirname(README), "docs", "explanation", "faults.rst")
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
    """What the example uses of FastAPI."""

    def __init__(self, lifespan: Any) -> None:
        self.lifespan = lifespan
        self.handlers: dict[type[Exception], _Handler] = {}

    def exception_handler(self, kind: type[Exception]) -> Callable[[_Handler], _Handler]:
        """Keep the function, for who calls in the place of the framework."""
        return lambda function: self.handlers.setdefault(kind, function)

    def post(self, route: str) -> Callable[[_Handler], _Handler]:
        """The function stays what it is."""
        return lambda function: function


class TheProgramWithoutCoroutines(unittest.TestCase):
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

    def test_sends(self) -> None:
        """The module on the page sends, with a web framework that only knows what is used of it."""
        text = blocks("howto/asyncio.rst", "python")[1].text
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
