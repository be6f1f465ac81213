"""Whoever programmed against zope.sendmail 7.3 finds everything where it was: names, signatures, attributes.

The tables below are the API of 7.3 as its users know it; what has become different on purpose stands in
``docs/howto/upgrading.rst``.
"""

from __future__ import annotations

import configparser
import inspect
import logging
import os
import smtplib
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import transaction
from zope.configuration import xmlconfig
from zope.configuration.config import ConfigurationMachine
from zope.interface.interface import InterfaceClass, Method
from zope.interface.verify import verifyClass, verifyObject
from zope.schema.interfaces import IVocabularyFactory
from zope.testing.cleanup import cleanUp

import zope.sendmail
from zope.sendmail import delivery, interfaces, maildir, mailer, queue, vocabulary, zcml
from zope.sendmail.datamanager import MailDataManager
from zope.sendmail.interfaces import IMailDelivery, IMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.tests.support.layers import Processes, in_layer

#: What could be imported from each module.
NAMES = """
interfaces  IMailDelivery IDirectMailDelivery IQueuedMailDelivery IMailQueueProcessor IMailer ISMTPMailer
interfaces  IMaildirFactory IMaildir IMaildirMessageWriter
delivery    MailDataManager AbstractMailDelivery DirectMailDelivery QueuedMailDelivery QueueProcessorThread Maildir log
mailer      SMTPMailer _SMTPState SMTP SMTP_SSL SSLError
queue       MAX_SEND_TIME QueueProcessorThread ConsoleApp Maildir SMTPMailer boolean string_or_none run _os_link
maildir     Maildir MaildirMessageWriter _encode_utf8
vocabulary  MailDeliveryNames
zcml        IDeliveryDirective IQueuedDeliveryDirective IDirectDeliveryDirective IMailerDirective ISMTPMailerDirective
zcml        queuedDelivery directDelivery smtpMailer _assertPermission _get_mailer SECURITY_SUPPORT
zcml        QueueProcessorThread DirectMailDelivery QueuedMailDelivery SMTPMailer
"""

#: Callables with their arguments; `=` where an argument could be left out.
SIGNATURES = """
delivery.MailDataManager            callable args= vote= onAbort=
delivery.DirectMailDelivery         mailer
delivery.QueuedMailDelivery         queuePath
delivery.AbstractMailDelivery
mailer.SMTPMailer                   hostname= port= username= password= no_tls= force_tls= implicit_tls= timeout=
queue.QueueProcessorThread          interval=
queue.ConsoleApp                    argv= verbose=
queue.boolean                       s
queue.string_or_none                s
queue.run                           argv=
maildir.Maildir                     path create=
maildir.MaildirMessageWriter        fd filename new_filename
maildir._encode_utf8                s
vocabulary.MailDeliveryNames        context=
zcml.queuedDelivery                 _context queuePath mailer permission= name= processorThread=
zcml.directDelivery                 _context mailer permission= name=
zcml.smtpMailer                     _context name hostname= port= username= password= implicit_tls= timeout=
zcml._assertPermission              permission interfaces component
zcml._get_mailer                    mailer
"""

#: Methods, likewise.
METHODS = """
delivery.AbstractMailDelivery   newMessageId
delivery.AbstractMailDelivery   send                fromaddr toaddrs message
delivery.AbstractMailDelivery   createDataManager   fromaddr toaddrs message
delivery.MailDataManager        commit              txn
delivery.MailDataManager        abort               txn
delivery.MailDataManager        sortKey
delivery.MailDataManager        savepoint
delivery.MailDataManager        tpc_begin           txn subtransaction=
delivery.MailDataManager        tpc_vote            txn
delivery.MailDataManager        tpc_finish          txn
delivery.MailDataManager        tpc_abort           txn
delivery.MailDataManager        abort_sub           txn
delivery.MailDataManager        commit_sub          txn
delivery.MailDataManager        beforeCompletion    txn
delivery.MailDataManager        afterCompletion     txn
mailer.SMTPMailer               vote                fromaddr toaddrs message
mailer.SMTPMailer               send                fromaddr toaddrs message
mailer.SMTPMailer               abort
mailer.SMTPMailer               _close_connection
queue.QueueProcessorThread      setMaildir          maildir
queue.QueueProcessorThread      setQueuePath        path
queue.QueueProcessorThread      setMailer           mailer
queue.QueueProcessorThread      run                 forever=
queue.QueueProcessorThread      stop
queue.QueueProcessorThread      _makeMaildir        path
queue.QueueProcessorThread      _parseMessage       message
queue.QueueProcessorThread      _process_one_file   filename
queue.QueueProcessorThread      _action_if_exists   fname func default=
queue.QueueProcessorThread      _unlink_if_exists   fname
queue.ConsoleApp                main
maildir.Maildir                 newMessage
maildir.Maildir                 __iter__
maildir.MaildirMessageWriter    write               data
maildir.MaildirMessageWriter    writelines          lines
maildir.MaildirMessageWriter    close
maildir.MaildirMessageWriter    commit
maildir.MaildirMessageWriter    abort
"""

#: Members of interfaces.
MEMBERS = """
IMailDelivery           send
IDirectMailDelivery     send mailer
IQueuedMailDelivery     send queuePath
IMailQueueProcessor     queuePath pollingInterval mailer
IMailer                 send abort vote
ISMTPMailer             send abort vote hostname port username password no_tls force_tls implicit_tls timeout
IMaildirFactory         __call__
IMaildir                __iter__ newMessage
IMaildirMessageWriter   write writelines close commit abort
"""

#: Attributes of ZCML directives; `!` where it has to be given.
DIRECTIVES = """
IDeliveryDirective          name mailer! permission
IQueuedDeliveryDirective    name mailer! permission queuePath processorThread
IDirectDeliveryDirective    name mailer! permission
IMailerDirective            name!
ISMTPMailerDirective        name! hostname port username password implicit_tls timeout
"""

MODULES: dict[str, Any] = {
    "interfaces": interfaces,
    "delivery": delivery,
    "mailer": mailer,
    "queue": queue,
    "maildir": maildir,
    "vocabulary": vocabulary,
    "zcml": zcml,
}


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


def find(dotted: str) -> Any:
    module, _, name = dotted.partition(".")
    return getattr(MODULES[module], name)


class Names(unittest.TestCase):
    def test_are_where_they_were(self) -> None:
        """With ``import`` and with ``from ... import``."""
        for module, *names in rows(NAMES):
            for name in names:
                with self.subTest(f"{module}.{name}"):
                    self.assertTrue(hasattr(import_module(f"zope.sendmail.{module}"), name))
                    exec(f"from zope.sendmail.{module} import {name}", {})

    def test_are_one_thing_wherever_they_stand(self) -> None:
        """Who asks with ``isinstance`` gets the right answer by every path."""
        for name in ("QueueProcessorThread", "Maildir", "SMTPMailer"):
            homes = [find(f"{row[0]}.{name}") for row in rows(NAMES) if name in row]
            self.assertEqual(len(set(homes)), 1, name)

    def test_the_package_itself_is_empty(self) -> None:
        """Nothing happens when it is imported."""
        self.assertEqual([name for name in vars(zope.sendmail) if name.isupper()], [])

    def test_loggers(self) -> None:
        """Those that sites configure."""
        self.assertIs(delivery.log, logging.getLogger("MailDataManager"))
        self.assertIs(queue.QueueProcessorThread.log, logging.getLogger("QueueProcessorThread"))


class Signatures(unittest.TestCase):
    def check(self, function: Any, wanted: list[str]) -> None:
        """As many positional arguments may be given by place; and each by its name, if somebody did that."""
        parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
        layout = [each for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self.assertGreaterEqual(len(layout), len(wanted))
        for name, parameter in zip(wanted, layout, strict=False):
            if name.endswith("="):
                self.assertIsNot(parameter.default, inspect.Parameter.empty, name)
                self.assertEqual(parameter.name, name[:-1])
        for parameter in layout[len(wanted) :]:
            self.assertIsNot(parameter.default, inspect.Parameter.empty, parameter.name)

    def test_of_functions_and_classes(self) -> None:
        """Everything that could be called so still can."""
        for dotted, *wanted in rows(SIGNATURES):
            with self.subTest(dotted):
                self.check(find(dotted), wanted)

    def test_of_methods(self) -> None:
        """Likewise."""
        for dotted, name, *wanted in rows(METHODS):
            with self.subTest(f"{dotted}.{name}"):
                self.check(getattr(find(dotted), name), wanted)

    def test_keywords_of_what_is_called_with_them(self) -> None:
        """Products.MailHost, Plone and ZCML name what they pass."""
        for dotted in ("mailer.SMTPMailer", "zcml.queuedDelivery", "zcml.directDelivery", "zcml.smtpMailer"):
            [wanted] = [row[1:] for row in rows(SIGNATURES) if row[0] == dotted]
            self.assertLessEqual({each.rstrip("=") for each in wanted}, set(inspect.signature(find(dotted)).parameters))

    def test_defaults_of_the_mailer(self) -> None:
        """A mailer without arguments speaks with localhost as it did."""
        made = mailer.SMTPMailer()
        self.assertEqual((made.hostname, made.port, made.timeout), ("localhost", 25, 10))
        self.assertEqual((made.username, made.password), (None, None))
        self.assertEqual((made.no_tls, made.force_tls, made.implicit_tls), (False, False, False))


class Contracts(unittest.TestCase):
    def test_have_their_members(self) -> None:
        """Interfaces have grown, and lost nothing."""
        for name, *members in rows(MEMBERS):
            contract = getattr(interfaces, name)
            self.assertIsInstance(contract, InterfaceClass)
            self.assertLessEqual(set(members), set(contract.names(all=True)), name)

    def test_ask_for_the_same_arguments(self) -> None:
        """A method of an interface is called as before."""
        for name in ("IMailDelivery", "IMailer"):
            method = getattr(interfaces, name)["send"]
            self.assertIsInstance(method, Method)
            self.assertEqual(method.getSignatureInfo()["positional"], ("fromaddr", "toaddrs", "message"))

    def test_are_kept_by_those_who_kept_them(self) -> None:
        """``providedBy`` answers as before; the processor keeps its contract for the first time."""
        self.assertTrue(verifyObject(interfaces.IDirectMailDelivery, delivery.DirectMailDelivery(None)))
        self.assertTrue(verifyObject(interfaces.IQueuedMailDelivery, delivery.QueuedMailDelivery("/q")))
        self.assertTrue(verifyObject(interfaces.ISMTPMailer, mailer.SMTPMailer()))
        self.assertTrue(verifyObject(interfaces.IMailQueueProcessor, queue.QueueProcessorThread()))
        self.assertTrue(verifyClass(interfaces.IMaildir, maildir.Maildir))
        self.assertTrue(interfaces.IMaildirFactory.providedBy(maildir.Maildir))
        self.assertTrue(interfaces.IMaildirMessageWriter.implementedBy(maildir.MaildirMessageWriter))
        self.assertTrue(IVocabularyFactory.providedBy(vocabulary.MailDeliveryNames))


class TheDataManager(unittest.TestCase):
    def test_has_its_attributes(self) -> None:
        """Under their names, with the global transaction manager."""
        calls: list[Any] = []
        manager = MailDataManager(calls.append, ("sent",), vote=calls.append, onAbort=lambda: calls.append("off"))
        self.assertEqual((manager.callable, manager.args, manager.vote), (calls.append, ("sent",), calls.append))
        self.assertIs(manager.transaction_manager, transaction.manager)
        self.assertIsInstance(manager.sortKey(), str)
        manager.savepoint().rollback()
        manager.tpc_begin(None)
        manager.commit(None)
        manager.tpc_vote(None)
        manager.tpc_finish(None)
        manager.abort(None)
        manager.tpc_abort(None)
        self.assertEqual(calls, ["sent", "sent", "off", "off"])

    def test_swallows_what_finishing_raises(self) -> None:
        """And logs it under the old name."""
        manager = MailDataManager(lambda: 1 / 0)
        with self.assertLogs("MailDataManager", logging.ERROR) as log:
            manager.tpc_finish(None)
        self.assertIn("Failed in tpc_finish", log.output[0])


class TheMailer(unittest.TestCase):
    def test_class_attributes(self) -> None:
        """The classes of smtplib, on instances only."""
        self.assertIsNone(mailer.SMTPMailer.smtp)
        self.assertIs(mailer.SMTPMailer().smtp, smtplib.SMTP)
        self.assertIs(mailer.SMTPMailer(implicit_tls=True).smtp, smtplib.SMTP_SSL)
        self.assertIs(mailer.SSLError, ssl.SSLError)

    def test_state_of_a_thread(self) -> None:
        """Three properties that can be set, over a thread-local `_smtp`."""
        made = mailer.SMTPMailer()
        for name in ("connection", "code", "response"):
            self.assertIsNone(getattr(made, name))
            setattr(made, name, name)
            self.assertEqual(getattr(made, name), name)
            self.assertIsNone(getattr(mailer._SMTPState, name))
        self.assertIsInstance(made._smtp, threading.local)


class TheProcessor(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")

    def test_is_the_thread_that_it_was(self) -> None:
        """Daemonic, with its name, its interval, nothing to do yet."""
        thread = queue.QueueProcessorThread()
        self.assertIsInstance(thread, threading.Thread)
        self.assertEqual((thread.name, thread.daemon), ("zope.sendmail.queue.QueueProcessorThread", True))
        self.assertEqual((thread.interval, thread.maildir, thread.mailer), (3.0, None, None))
        self.assertEqual(queue.QueueProcessorThread(7).interval, 7)
        self.assertFalse(thread._stopped)
        with thread._lock:
            thread.stop()
        self.assertTrue(thread._stopped)

    def test_makes_its_queue_at_once(self) -> None:
        """Products.MailHost counts the queue right after it has started the thread."""
        thread = queue.QueueProcessorThread()
        thread.setQueuePath(self.path)
        assert thread.maildir is not None
        self.assertEqual((thread.maildir.path, list(thread.maildir)), (self.path, []))

    def test_takes_a_maildir(self) -> None:
        """With the method and with the attribute."""
        box = maildir.Maildir(self.path, True)
        for take in (queue.QueueProcessorThread.setMaildir, lambda each, box: setattr(each, "maildir", box)):
            thread = queue.QueueProcessorThread()
            take(thread, box)
            self.assertEqual(thread.queuePath, self.path)

    def test_refuses_what_is_no_queue(self) -> None:
        """Before a thread is started for it: Products.MailHost's default is /tmp."""
        os.makedirs(os.path.join(self.path, "something"))
        with self.assertRaisesRegex(ValueError, "is not a Maildir folder"):
            queue.QueueProcessorThread().setQueuePath(self.path)

    def test_reads_a_queue_file(self) -> None:
        """Sender, recipients as a tuple, the rest."""
        parse = queue.QueueProcessorThread()._parseMessage
        head = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org, c@example.org\n"
        self.assertEqual(
            parse(head + b"Subject: x\n\ny\n"),
            ("a@example.org", ("b@example.org", "c@example.org"), b"Subject: x\n\ny\n"),
        )
        self.assertEqual(parse(b"Subject: x\n\ny\n")[:2], ("", ()))

    def test_sends_a_file(self) -> None:
        """Also called from a subclass with a ``run`` of its own."""
        sent: list[Any] = []

        class Mailer:
            def send(self, fromaddr: str, toaddrs: Any, message: bytes) -> None:
                sent.append((fromaddr, tuple(toaddrs)))

        class Own(QueueProcessorThread):
            def run(self, forever: bool = True) -> None:
                assert self.maildir is not None
                for filename in self.maildir:
                    self._process_one_file(filename)

        writer = maildir.Maildir(self.path, True).newMessage()
        writer.write("X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n\nx\n")
        name = writer.commit()
        thread = Own()
        thread.setMailer(Mailer())
        thread.setQueuePath(self.path)
        thread.run()
        self.assertEqual(sent, [("a@example.org", ("b@example.org",))])
        self.assertEqual(thread._action_if_exists(name, os.path.getsize, "gone"), "gone")
        thread._unlink_if_exists(name)


class TheConsoleScript(unittest.TestCase):
    def test_has_the_attributes_of_the_class(self) -> None:
        """What subclasses replace and what others read."""
        app = queue.ConsoleApp(["zope-sendmail", "--hostname", "relay.example.org", "--port", "26", "q"])
        self.assertEqual(app.INI_SECTION, "app:zope-sendmail")
        names = ["interval", "hostname", "port", "username", "password", "force_tls", "no_tls", "queue_path"]
        self.assertLessEqual(set(names), set(app.INI_NAMES))
        values = [3, "relay.example.org", 26, None, None, False, False, "q"]
        self.assertEqual([getattr(app, name) for name in names], values)
        self.assertEqual((app.daemon, app.script_name), (False, "zope-sendmail"))
        self.assertIs(app.MailerKind, mailer.SMTPMailer)
        self.assertIs(app.QueueProcessorKind, queue.QueueProcessorThread)
        self.assertIsInstance(app.mailer, mailer.SMTPMailer)
        self.assertTrue(callable(app.parser.parse_args))

    def test_takes_the_options_of_old(self) -> None:
        """All of them, together with an ini file with all its keys."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        config = configparser.RawConfigParser()
        section = {
            "interval": "5",
            "hostname": "ini.example.org",
            "port": "587",
            "force_tls": "true",
            "no_tls": "False",
        }
        config[queue.ConsoleApp.INI_SECTION] = {**section, "username": "None", "password": "None", "queue_path": "/q"}
        path = os.path.join(directory, "mail.ini")
        with open(path, "w", encoding="utf-8") as file:
            config.write(file)
        app = queue.ConsoleApp(["zope-sendmail", "--config", path])
        self.assertEqual((app.interval, app.hostname, app.port), (5, "ini.example.org", 587))
        self.assertEqual((app.force_tls, app.no_tls, app.username, app.queue_path), (True, False, None, "/q"))
        line = "--daemon --interval 2 --hostname h --port 26 --username u --password p --no-tls q"
        app = queue.ConsoleApp(["zope-sendmail", *line.split()])
        self.assertEqual((app.daemon, app.interval, app.username, app.no_tls), (True, 2, "u", True))

    def test_is_started_as_before(self) -> None:
        """As a script, as the module, and by the entry point that buildouts have written down."""
        scripts = [each for each in entry_points(group="console_scripts") if each.name == "zope-sendmail"]
        if scripts:  # it is installed, not only on the path
            self.assertEqual(len(scripts), 1)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for arguments in (
            ["-m", "zope.sendmail.queue", "--help"],
            ["-c", "import sys; from zope.sendmail.queue import run; sys.exit(run(['zope-sendmail', '--help']))"],
        ):
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("--daemon", done.stdout)

    def test_words_of_the_ini_file(self) -> None:
        """The two functions that read them."""
        for text in ("true", "True", "t", "yes", "Y", "1", True):
            self.assertIs(queue.boolean(text), True)
        for text in ("false", "no", "0", "off", False):
            self.assertIs(queue.boolean(text), False)
        self.assertIsNone(queue.string_or_none("None"))
        self.assertEqual(queue.string_or_none("none at all"), "none at all")


class TheConfiguration(unittest.TestCase):
    def setUp(self) -> None:
        cleanUp()
        self.addCleanup(cleanUp)
        self.path = self.enterContext(tempfile.TemporaryDirectory())

    def test_directives_have_their_attributes(self) -> None:
        """None has become obligatory."""
        for name, *attributes in rows(DIRECTIVES):
            schema = getattr(zcml, name)
            self.assertLessEqual({each.rstrip("!") for each in attributes}, set(schema.names(all=True)), name)
            needed = {each for each in schema.names(all=True) if schema[each].required}
            self.assertEqual(needed, {each[:-1] for each in attributes if each.endswith("!")}, name)

    def test_discriminators(self) -> None:
        """So overrides and conflicts come out as before."""
        context = ConfigurationMachine()
        context.package = zope.sendmail
        zcml.smtpMailer(context, "m")
        zcml.queuedDelivery(context, os.path.join(self.path, "q"), "m", None, "queued", False)
        zcml.directDelivery(context, "m", None, "direct")
        found = {action["discriminator"] for action in context.actions} - {None}
        self.assertEqual(
            found,
            {("utility", IMailer, "m"), ("utility", IMailDelivery, "queued"), ("utility", IMailDelivery, "direct")},
        )

    def test_the_handler_is_found_when_zcml_is_loaded(self) -> None:
        """loops replaces it in the module, and has its own one called."""
        called: list[dict[str, Any]] = []
        original = zcml.smtpMailer
        self.addCleanup(setattr, zcml, "smtpMailer", original)
        zcml.smtpMailer = lambda _context, **options: called.append(options)
        context = xmlconfig.file("meta.zcml", zope.sendmail)
        text = '<smtpMailer xmlns="http://namespaces.zope.org/mail" name="m" hostname="h" port="25" />'
        xmlconfig.string(text, context)
        self.assertEqual([(each["name"], each["hostname"], each["port"]) for each in called], [("m", "h", 25)])


if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Processes)
