"""The examples of the manual do what it says; skipped where the manual is not (an installed package)."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from zope.sendmail.reporting import notifier
from zope.sendmail.sender import MailSender
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.subscribing import subscribe

EXAMPLES = Path(__file__).resolve().parents[5] / "docs" / "examples"


class Fixture(unittest.TestCase):
    def example(self, name: str) -> Any:
        path = EXAMPLES / f"{name}.py"
        if not path.exists():
            self.skipTest(f"the manual is not here: {path}")
        spec = importlib.util.spec_from_file_location(f"example_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


class ALetter(Fixture):
    def test_has_all_its_parts(self) -> None:
        """As a reader's program finds them, after the queue."""
        outbox = Outbox()
        letter = self.example("letter").make_letter("jürgen@example.com", 7, b"\x89PNG", b"%PDF")
        outbox.sender().send("bounces@example.org", ["jürgen@example.com", "archive@example.org"], letter)
        message = outbox.assert_sent(to="archive@example.org", subject="Your order 7", text="Thank you!").message
        html = message.get_body(["html"])
        assert html is not None
        [attachment] = message.iter_attachments()
        self.assertEqual((attachment.get_filename(), attachment.get_content()), ("Rechnung für 7.pdf", b"%PDF"))
        [picture] = [part for part in message.walk() if part.get_content_type() == "image/png"]
        self.assertIn(f"cid:{picture['Content-ID'][1:-1]}", html.get_content())
        self.assertEqual(message["From"].addresses[0].display_name, "Bücher & mehr")


class AWebhook(Fixture):
    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.posted: list[dict[str, Any]] = []
        self.arrived = threading.Condition()
        self.says = 204

    def serve(self) -> str:
        """Start the other server; return its URL."""
        test = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with test.arrived:
                    if test.says == 204:
                        test.posted.append(json.loads(body))
                    test.arrived.notify_all()
                self.send_response(test.says)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}/mail"

    def test_loses_nothing_while_the_other_side_is_down(self) -> None:
        """It refuses first, then there is nobody, then it takes all."""
        module = self.example("webhook")
        self.says = 500
        url = self.serve()
        hook = module.Webhook(self.directory, url)
        subscribe(self, hook.on_event)
        with Relay() as relay, MailSender("memory:", relay.host, relay.port) as sender:
            relay.on("RCPT", "550 5.1.1 no such user", about="joe@")
            for name in ("jane", "joe"):
                sender.send("shop@example.org", [f"{name}@example.org"], "Subject: x\n\n")
        self.assertEqual(hook.post_waiting(), 0)
        self.assertEqual(module.Webhook(self.directory, "http://127.0.0.1:9/", timeout=1.0).post_waiting(), 0)
        self.says = 204
        self.assertEqual(hook.post_waiting(), 2)
        self.assertEqual([each["event"] for each in self.posted], ["sent", "rejected"])
        self.assertIn("550", str(self.posted[1]["replies"]))
        self.assertEqual(hook.post_waiting(), 0)

    def test_posts_by_itself(self) -> None:
        """As soon as something happened."""
        hook = self.example("webhook").Webhook(self.directory, self.serve())
        self.assertTrue(notifier.flush(60))  # what other tests have to tell
        hook.subscribe()
        self.addCleanup(hook.stop)
        with Relay() as relay, MailSender("memory:", relay.host, relay.port) as sender:
            sender.send("shop@example.org", ["jane@example.org"], "Subject: x\n\n")
        with self.arrived:
            self.assertTrue(self.arrived.wait_for(lambda: self.posted, 60))
