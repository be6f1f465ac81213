"""`zope.sendmail.maildrop.host`: a MailHost whose mail goes into a spool, and of which a key is in the database."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import unittest
from email.message import EmailMessage
from typing import Any

import transaction

from zope.sendmail.interfaces import InvalidMail
from zope.sendmail.tests.support.zopes import MESSAGE, WithHost, needs_zope, write_config

JANE, JOE = ("jane@example.org",), ("joe@example.org",)

#: What 2.3 left in the database, under protocol 1 as ZODB wrote it then.
OLD_STATE = {
    "id": "MailHost",
    "title": "Maildrop Host",
    "_transactional": True,
    "smtp_host": "old.example.org",
    "smtp_port": 25,
    "debug": "Off",
    "_debug_receiver": "",
    "debug_receiver": "(not set)",
    "polling": 120,
    "spool": "/tmp/maildrop/spool",
    "use_tls": "No",
    "login": "ann",
    "password": "******",
    "add_messageid": "Off",
    "maildrop_log_file": "/tmp/maildrop/var/maildrop.log",
}


class AProfile(WithHost):
    """mailhost.xml of GenericSetup."""

    def setUp(self) -> None:
        super().setUp()
        if importlib.util.find_spec("Products.GenericSetup") is None:
            self.skipTest("Products.GenericSetup is not installed")
        from Products.GenericSetup.tests.common import DummyImportContext

        from zope.sendmail.maildrop.exportimport import MaildropHostProfile

        self.profile = MaildropHostProfile(self.host, DummyImportContext(None))

    def test_of_a_mail_host_brings_no_settings_and_no_password(self) -> None:
        """The file has them; nothing is raised."""
        before = self.host.__getstate__()
        self.profile.body = (
            '<object name="MailHost" smtp_host="x" smtp_port="25" smtp_uid="u" smtp_pwd="secret" smtp_queue="True"/>'
        )
        self.assertEqual(self.host.__getstate__(), before)

    def test_of_our_own_is_read_again(self) -> None:
        """Key, mode and title; no login is in it."""
        text = self.profile.body
        self.host.setConfigPath("other")
        self.host.title, self.host._transactional = "Else", False
        self.profile.body = text
        self.assertEqual((self.host._path_key, self.host.title), ("own", "Maildrop Host"))
        self.assertTrue(self.host.isTransactional())
        self.assertNotIn(b"smtp_", text)

    def test_with_an_unknown_key_changes_nothing(self) -> None:
        """The error names the keys there are."""
        with self.assertRaisesRegex(ValueError, "Invalid path key"):
            self.profile.body = '<object name="MailHost" title="Else" path_key="missing"/>'
        self.assertEqual((self.host._path_key, self.host.title), ("own", "Maildrop Host"))


class AnIMailHost(WithHost):
    def test_provides_the_interface(self) -> None:
        """Class and object keep IMailHost."""
        from Products.MailHost.interfaces import IMailHost
        from zope.interface.verify import verifyClass, verifyObject

        verifyClass(IMailHost, type(self.host))
        verifyObject(IMailHost, self.host)

    def test_takes_recipients_from_the_headers(self) -> None:
        """To, Cc and Bcc, as MailHost does; Bcc is not sent."""
        self.host.send("From: a@example.org\nTo: J <jane@example.org>\nCc: b@example.org\nBcc: c@example.org\n\nx")
        transaction.commit()
        self.assertEqual(self.waiting(), [("jane@example.org", "b@example.org", "c@example.org")])
        self.assertNotIn(b"c@example.org", self.text())

    def test_arguments_beat_headers(self) -> None:
        """Recipient, sender and subject."""
        self.host.send(MESSAGE, mto="joe@example.org", mfrom="boss@example.org", subject="Else")
        transaction.commit()
        self.assertEqual(self.waiting(), [JOE])
        self.assertIn(b"Subject: Else", self.text())
        self.assertIn(b"boss@example.org", self.text())

    def test_recipients_may_be_a_list(self) -> None:
        """One mail for all."""
        self.host.send(MESSAGE, mto=["jane@example.org", "Joe <joe@example.org>"])
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE + JOE])

    def test_nobody_to_send_to(self) -> None:
        """MailHost's own error."""
        from Products.MailHost.MailHost import MailHostError

        for text in ("From: a@example.org\n\nx", "To: a@example.org\n\nx", "x"):
            with self.subTest(text), self.assertRaises(MailHostError):
                self.host.send(text)

    def test_takes_message_objects(self) -> None:
        """With text that is not ASCII."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "a@example.org", "jane@example.org", "Grüße"
        message.set_content("Schöne Grüße")
        self.host.send(message)
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_takes_bytes(self) -> None:
        """As MailHost 6 hands them to `_send`."""
        self.host._send("a@example.org", ["jane@example.org"], MESSAGE.encode() + b"\xff")
        transaction.commit()
        self.assertIn(b"Good day.\n\xff", self.text())

    def test_takes_text_that_is_not_ascii(self) -> None:
        """2.3 left a half-written file behind."""
        self.host.send(MESSAGE + "Grüße", charset="utf-8")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_simple_send(self) -> None:
        """From, to, subject, body."""
        self.host.simple_send("jane@example.org", "shop@example.org", "Hello", "Good day.")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])
        self.assertIn(b"Subject: Hello", self.text())

    def test_line_ends_make_no_headers(self) -> None:
        """In no argument of any of its ways to send: a form cannot add recipients, or headers."""
        evil = "x\nBcc: eve@example.org"
        for send in (self.host.send, self.host.scheduledSend):
            for name in ("mto", "mfrom", "subject"):
                with self.assertRaisesRegex(InvalidMail, f"^{name} .* has a line end"):
                    send(MESSAGE, **{name: evil})
        good = ["jane@example.org", "shop@example.org", "Hello", "Good day."]
        for position in range(3):
            with self.assertRaises(InvalidMail):
                self.host.simple_send(*good[:position], evil, *good[position + 1 :])
        self.host.simple_send(*good[:2], "Hello\n", "Bcc: is text here")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_scheduled_send(self) -> None:
        """Another name of `send`."""
        self.host.scheduledSend(MESSAGE)
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_send_template(self) -> None:
        """What a template renders is sent."""
        place = Template()
        self.host.REQUEST = None
        self.assertEqual(self.host.sendTemplate(place, "letter"), "SEND OK")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_dtml_sendmail(self) -> None:
        """The tag finds the object by its name, and renders to a blank."""
        import Products.MailHost.SendMailTag  # noqa: F401 - registers the tag
        from DocumentTemplate.DT_HTML import HTML

        page = HTML(f'<dtml-sendmail mailhost="MailHost">{MESSAGE}</dtml-sendmail>')
        self.assertEqual(page(MailHost=self.host), " ")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_immediate_changes_nothing(self) -> None:
        """It goes into the spool, with the transaction, as in 2.3."""
        self.host.send(MESSAGE, immediate=True)
        self.assertEqual(self.waiting(), [])
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_debug_receiver_gets_everything(self) -> None:
        """Instead of the recipients."""
        self.config(DEBUG_RECEIVER="one@example.org, two@example.org")
        self.host.send(MESSAGE)
        transaction.commit()
        self.assertEqual(self.waiting(), [("one@example.org", "two@example.org")])

    def test_what_looks_like_an_envelope_is_text(self) -> None:
        """In 2.3 such a message chose its recipients."""
        self.host._send("a@example.org", ["jane@example.org"], b"##To:eve@example.org\nSubject: x\n\nx")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])
        self.assertIn(b"##To:eve@example.org", self.text())

    def test_a_bad_address_is_refused(self) -> None:
        """Before anything is written."""
        with self.assertRaises(InvalidMail):
            self.host._send("a@example.org", ["jane@example.org\nRCPT TO:<eve@example.org>"], MESSAGE)
        transaction.commit()
        self.assertEqual(self.waiting(), [])


class AScriptOfAManager(WithHost):
    """Code in the database, of a user with all permissions: it is restricted all the same."""

    def setUp(self) -> None:
        super().setUp()
        from AccessControl.SecurityManagement import newSecurityManager, noSecurityManager
        from AccessControl.users import SimpleUser
        from OFS.Application import Application

        self.root = Application()
        self.root._setObject("MailHost", self.host)
        newSecurityManager(None, SimpleUser("manager", "", ("Manager",), []).__of__(self.root))
        self.addCleanup(noSecurityManager)

    def test_cannot_let_zope_read_and_write_anywhere(self) -> None:
        """Which configurations there are is said in zope.conf, or by code on the disk."""
        from AccessControl import Unauthorized
        from AccessControl.ZopeGuards import guarded_getattr

        with self.assertRaises(Unauthorized):
            guarded_getattr(self.root.MailHost, "addConfigPath")

    def test_chooses_among_what_is_offered(self) -> None:
        """As on the Edit tab, and nothing else."""
        from AccessControl.ZopeGuards import guarded_getattr

        choose = guarded_getattr(self.root.MailHost, "setConfigPath")
        choose("other")
        with self.assertRaisesRegex(ValueError, "Invalid path key"):
            choose("/etc/passwd")

    def test_sends(self) -> None:
        """What `MailHost` allows is allowed here."""
        from AccessControl.ZopeGuards import guarded_getattr

        for name in ("send", "simple_send", "scheduledSend", "sendTemplate"):
            self.assertTrue(callable(guarded_getattr(self.root.MailHost, name)))


class Template:
    """A place with a template in it."""

    def letter(self, client: Any, request: Any) -> str:
        """The mail."""
        return MESSAGE


class Transactional(WithHost):
    def test_nothing_is_ready_before_the_commit(self) -> None:
        """And all of it afterwards, in order."""
        self.host.send(MESSAGE)
        self.host.send(MESSAGE, mto="joe@example.org")
        self.assertEqual(self.waiting(), [])
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE, JOE])

    def test_an_abort_leaves_nothing(self) -> None:
        """No file of any kind."""
        self.host.send(MESSAGE)
        transaction.abort()
        self.assertEqual(self.files(), [])

    def test_a_rolled_back_mail_is_gone_and_the_commit_works(self) -> None:
        """Send, savepoint, send, rollback, commit: 2.3 left the database half finished."""
        self.host.send(MESSAGE)
        savepoint = transaction.savepoint()
        self.host.send(MESSAGE, mto="joe@example.org")
        savepoint.rollback()
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_mail_after_a_rollback(self) -> None:
        """It goes with the first."""
        self.host.send(MESSAGE)
        savepoint = transaction.savepoint()
        self.host.send(MESSAGE, mto="ann@example.org")
        savepoint.rollback()
        self.host.send(MESSAGE, mto="joe@example.org")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE, JOE])

    def test_a_repeated_request_sends_once(self) -> None:
        """The first attempt conflicts, the second commits."""
        from ZODB.POSException import ConflictError

        attempts = 0
        for attempt in transaction.manager.attempts(3):
            with attempt:
                attempts += 1
                self.host.send(MESSAGE)
                if attempts == 1:
                    raise ConflictError
        self.assertEqual((attempts, self.waiting()), (2, [JANE]))

    def test_a_vote_that_fails_leaves_nothing(self) -> None:
        """Another resource of the transaction refuses."""
        transaction.get().join(Refusing())
        self.host.send(MESSAGE)
        with self.assertRaises(RuntimeError):
            transaction.commit()
        transaction.abort()
        self.assertEqual(self.files(), [])

    def test_two_hosts_in_one_transaction(self) -> None:
        """Each into its own spool."""
        other = self.make("other")
        self.host.send(MESSAGE)
        other.send(MESSAGE, mto="joe@example.org")
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])
        self.host = other
        self.assertEqual(self.waiting(), [JOE])

    def files(self) -> list[str]:
        spool = self.host._config().spools[0]
        names = [name for _, _, names in os.walk(spool) for name in names]
        return [name for name in names if "lock" not in name and not name.startswith(".reserve-")]


class Refusing:
    """A data manager that refuses in the vote."""

    def abort(self, transaction: object) -> None: ...

    commit = tpc_begin = tpc_abort = tpc_finish = abort

    def tpc_vote(self, transaction: object) -> None:
        raise RuntimeError("refused")

    def sortKey(self) -> str:
        return "~"


class NotTransactional(WithHost):
    def setUp(self) -> None:
        super().setUp()
        self.host.manage_makeChanges("Maildrop Host")

    def test_the_edit_tab_switches_it_off(self) -> None:
        """An unmarked box is not sent by browsers."""
        self.assertFalse(self.host.isTransactional())

    def test_mail_is_ready_at_once(self) -> None:
        """And stays when the transaction aborts."""
        self.host.send(MESSAGE)
        self.assertEqual(self.waiting(), [JANE])
        transaction.abort()
        self.assertEqual(self.waiting(), [JANE])

    def test_the_callers_transaction_is_left_alone(self) -> None:
        """Nothing joins it."""
        before = transaction.get()
        self.host.send(MESSAGE)
        self.assertIs(transaction.get(), before)
        self.assertEqual(before._resources, [])


class Configurations(WithHost):
    def test_there_is_a_default(self) -> None:
        """Its file is in the Zope instance; a new object uses it."""
        from zope.sendmail.maildrop.host import MaildropHost

        self.assertIn("DEFAULT", dict(self.host.getCandidateConfigPaths()))
        path = MaildropHost("x").getConfigPath()
        self.assertEqual(path, dict(self.host.getCandidateConfigPaths())["DEFAULT"])
        self.assertTrue(path.endswith("etc/maildrop.conf"))

    def test_zope_conf_offers_more(self) -> None:
        """The keys that begin with config-path, and no others."""
        from App.config import getConfiguration, setConfiguration

        zope_conf = getConfiguration()
        before = getattr(zope_conf, "product_config", None)
        self.addCleanup(setattr, zope_conf, "product_config", before)
        zope_conf.product_config = {"maildrophost": {"config-path-news": "/etc/news.conf", "else": "/etc/passwd"}}
        setConfiguration(zope_conf)
        keys = dict(self.host.getCandidateConfigPaths())
        self.assertEqual(keys["config-path-news"], "/etc/news.conf")
        self.assertNotIn("else", keys)

    def test_the_settings_are_the_files(self) -> None:
        """By the attribute names of 2.3."""
        self.host.setConfigPath("other")
        self.assertEqual(self.host.smtp_host, "other.example.org")
        self.assertEqual((self.host.use_tls, self.host.debug, self.host.login), ("No", "Off", "(not set)"))

    def test_the_queue_tab_knows_what_the_daemon_knows(self) -> None:
        """For how long locks count, and what becomes of what is unknown."""
        self.config(MAILDROP_LOCK_AGE=0, MAILDROP_ON_UNKNOWN="hold")
        self.assertEqual((self.queue.schedule.on_unknown, self.queue._dropbox.lock_age), ("hold", 0.0))

    def test_a_change_of_the_file_is_seen(self) -> None:
        """Without loading the object anew."""
        self.assertEqual(self.host.smtp_host, "127.0.0.1")
        self.config(SMTP_HOST="new.example.org")
        self.assertEqual(self.host.smtp_host, "new.example.org")

    def test_the_file_rules_not_the_object(self) -> None:
        """Setting an attribute says so."""
        with self.assertRaisesRegex(AttributeError, "configuration file"):
            self.host.smtp_host = "mail.example.org"

    def test_the_password_is_never_shown(self) -> None:
        """Neither as an attribute nor on a page nor in the object."""
        self.config(MAILDROP_LOGIN="ann", MAILDROP_PASSWORD="se-cret")
        self.assertEqual(self.host.password, "******")
        seen = (self.host.manage_editData(), self.host.manage_logData())
        self.assertNotIn("se-cret", repr((seen, self.host.__getstate__(), self.host._config())))

    def test_only_the_key_is_stored(self) -> None:
        """Nothing of what the file says."""
        self.assertEqual(set(self.host.__getstate__()), {"id", "title", "_path_key"})

    def test_an_unknown_key(self) -> None:
        """Is refused, and nothing changes."""
        with self.assertRaisesRegex(ValueError, "Invalid path key 'nothing'"):
            self.host.setConfigPath("nothing")
        self.assertEqual(self.host.getConfigPath(), dict(self.host.getCandidateConfigPaths())["own"])

    def test_a_file_that_is_not_there(self) -> None:
        """Likewise."""
        self.host.addConfigPath("gone", "/does/not/exist")
        with self.assertRaisesRegex(ValueError, "Invalid config file path /does/not/exist"):
            self.host.setConfigPath("gone")
        self.assertEqual(self.host.smtp_host, "127.0.0.1")

    def test_a_file_that_is_no_configuration(self) -> None:
        """Likewise."""
        for number, text in enumerate(("", "SMTP_HOST='a'\n", "this is something else\n")):
            with self.subTest(text):
                path = os.path.join(self.directory, f"bad-{number}")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                self.host.addConfigPath("bad", path)
                with self.assertRaisesRegex(RuntimeError, "Invalid configuration file at"):
                    self.host.setConfigPath("bad")
        self.assertEqual(self.host.smtp_host, "127.0.0.1")

    def test_one_more_candidate(self) -> None:
        """Exactly one, for every object in the process."""
        before = self.host.getCandidateConfigPaths()
        self.host.addConfigPath("zz", "/etc/zz.conf")
        self.assertEqual(self.make().getCandidateConfigPaths(), (*before, ("zz", "/etc/zz.conf")))

    def test_saving_keeps_the_key(self) -> None:
        """With none or with the same."""
        for key in (None, "", "own"):
            self.host.manage_makeChanges("New title", transactional=True, path_key=key)
            self.assertEqual((self.host.title, self.host._path_key), ("New title", "own"))

    def test_saving_another_key(self) -> None:
        """From now on mail goes there."""
        self.host.manage_makeChanges("t", transactional=True, path_key="other")
        self.assertEqual(self.host.smtp_host, "other.example.org")


class WithoutConfiguration(WithHost):
    def setUp(self) -> None:
        super().setUp()
        os.remove(self.host.getConfigPath())

    def test_sending_fails_and_says_why(self) -> None:
        """Mail must not go elsewhere, as it did in 2.3, to the default configuration."""
        from Products.MailHost.MailHost import MailHostError

        with self.assertRaisesRegex(
            MailHostError, r'MaildropHost "MailHost" has no usable configuration.*maildrop\.conf'
        ):
            self.host.send(MESSAGE)

    def test_the_pages_say_what_is_wrong(self) -> None:
        """All three."""
        for data in (self.host.manage_editData(), self.host.manage_logData()):
            self.assertIn("maildrop.conf", data["problem"])

    def test_a_key_that_is_not_offered_any_more(self) -> None:
        """Zope was started without it; the page offers the others and keeps it unless one is chosen."""
        from Products.MailHost.MailHost import MailHostError

        from zope.sendmail.maildrop.configfiles import CONFIG_PATHS

        del CONFIG_PATHS["own"]
        with self.assertRaisesRegex(MailHostError, "'own', which is not among those offered here: DEFAULT, other"):
            self.host.send(MESSAGE)
        data = self.host.manage_editData()
        self.assertEqual(data["lost"], "own")
        self.assertFalse(any(each["chosen"] for each in data["candidates"]))
        self.host.manage_makeChanges("t", transactional=True, path_key="")
        self.assertEqual(self.host._path_key, "own")

    def test_it_loads(self) -> None:
        """Loading touches no file."""
        self.assertEqual(pickle.loads(pickle.dumps(self.host)).getId(), "MailHost")

    def test_the_same_broken(self) -> None:
        """A line that is nonsense is named."""
        from Products.MailHost.MailHost import MailHostError

        with open(self.host.getConfigPath(), "w", encoding="utf-8") as file:
            file.write("MAILDROP_HOME='/x'\nSMTP_PORT=\n")
        with self.assertRaisesRegex(MailHostError, r"maildrop\.conf, line "):
            self.host.send(MESSAGE)


class FromAnOldDatabase(WithHost):
    def load(self, **state: object) -> Any:
        """A 2.3 object."""
        from zope.sendmail.maildrop.host import MaildropHost

        host = MaildropHost.__new__(MaildropHost)
        host.__setstate__({**OLD_STATE, **state})
        return host

    def test_its_configuration_is_used(self) -> None:
        """By the path that it kept, whether it is offered or not."""
        self.host = self.load(config_path=write_config(self.directory, "old.conf", SMTP_HOST="here.example.org"))
        self.assertEqual(self.host.smtp_host, "here.example.org")
        self.host.send(MESSAGE)
        transaction.commit()
        self.assertEqual(self.waiting(), [JANE])

    def test_its_path_is_shown_as_chosen(self) -> None:
        """Where it is offered under a key."""
        old = self.load(config_path=self.host.getConfigPath())
        self.assertEqual([each["key"] for each in old.manage_editData()["candidates"] if each["chosen"]], ["own"])
        self.assertEqual(old.manage_editData()["lost"], "")

    def test_saving_does_not_switch_it(self) -> None:
        """In 2.3, saving an object whose path was not offered chose the first that was."""
        path = write_config(self.directory, "old.conf")
        old = self.load(config_path=path)
        self.assertEqual(old.manage_editData()["lost"], path)
        old.manage_makeChanges("t", transactional=True, path_key="")
        self.assertEqual(old.getConfigPath(), path)

    def test_without_a_path_it_has_the_default(self) -> None:
        """As in 2.3."""
        self.assertEqual(self.load().getConfigPath(), dict(self.host.getCandidateConfigPaths())["DEFAULT"])

    def test_copies_of_settings_are_dropped(self) -> None:
        """The login is written to the database no more."""
        self.assertEqual(set(self.load().__getstate__()), {"id", "title", "_transactional"})

    def test_choosing_a_key_forgets_the_path(self) -> None:
        """From then on zope.conf rules."""
        old = self.load(config_path="/etc/old.conf")
        old.setConfigPath("other")
        self.assertEqual(old.smtp_host, "other.example.org")
        self.assertNotIn("config_path", old.__getstate__())


@needs_zope
class TheOldNames(unittest.TestCase):
    def setUp(self) -> None:
        try:
            import Products.MaildropHost  # noqa: F401 - only whether it is there
        except ModuleNotFoundError:
            self.skipTest("compat/Products.MaildropHost is not installed")

    def test_a_pickle_with_the_old_class_loads(self) -> None:
        """And is written with the new one."""
        from zope.sendmail.maildrop.host import MaildropHost

        text = b"cProducts.MaildropHost.MaildropHost\nMaildropHost\np0\n."
        self.assertIs(pickle.load(io.BytesIO(text)), MaildropHost)
        self.assertIn(b"zope.sendmail.maildrop.host", pickle.dumps(MaildropHost))

    def test_an_object_in_an_old_database(self) -> None:
        """It loads, sends, and is stored anew by its new name and without the login."""
        from ZODB.DB import DB
        from ZODB.MappingStorage import MappingStorage
        from ZODB.utils import p64

        storage, oid = MappingStorage(), p64(23)
        database = DB(storage)
        self.addCleanup(database.close)
        _store(storage, oid, b"cProducts.MaildropHost.MaildropHost\nMaildropHost\n." + pickle.dumps(OLD_STATE, 1))
        connection = database.open()
        self.addCleanup(connection.close)
        self.addCleanup(transaction.abort)
        host = connection.get(oid)
        self.assertEqual(host.title, "Maildrop Host")
        host.title = "Changed"
        transaction.commit()
        stored, _ = storage.load(oid)
        self.assertIn(b"zope.sendmail.maildrop.host", stored)
        self.assertNotIn(b"ann", stored)

    def test_imports(self) -> None:
        """What scripts and other products imported."""
        from Products.MaildropHost import initialize
        from Products.MaildropHost.MaildropHost import (
            CONFIG_PATHS,
            DEFAULT_CONFIG_PATH,
            addMaildropHostForm,
            manage_addMaildropHost,
        )

        from zope.sendmail.maildrop import configfiles, host

        self.assertIs(CONFIG_PATHS, configfiles.CONFIG_PATHS)
        self.assertEqual(DEFAULT_CONFIG_PATH, configfiles.default_path())
        self.assertIs(manage_addMaildropHost, host.manage_addMaildropHost)
        self.assertIs(addMaildropHostForm, host.addMaildropHostForm)
        self.assertTrue(callable(initialize))


def _store(storage: Any, oid: bytes, record: bytes) -> None:
    """Put a record into a storage, as it is."""
    from ZODB.Connection import TransactionMetaData
    from ZODB.utils import z64

    entry = TransactionMetaData()
    storage.tpc_begin(entry)
    storage.store(oid, z64, record, "", entry)
    storage.tpc_vote(entry)
    storage.tpc_finish(entry)


class TheLog(WithHost):
    def write(self, text: bytes) -> None:
        path = self.host._config().log_file
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(text)

    def test_there_is_none(self) -> None:
        """An empty text, as in 2.3."""
        self.assertEqual(self.host.getLog(), "")
        self.assertEqual(self.host.manage_logData()["text"], "")

    def test_the_newest_lines(self) -> None:
        """Whole ones; 2.3 showed the oldest."""
        self.write(b"".join(b"line %d\n" % number for number in range(100)))
        self.assertEqual(self.host.getLog(20), "line 98\nline 99")
        self.assertEqual(self.host.getLog(16), "line 98\nline 99")

    def test_all_of_a_short_one(self) -> None:
        """From its first line."""
        self.write(b"one\ntwo \xff\x1b[2J\n")
        shown = self.host.getLog()
        self.assertTrue(shown.startswith("one\ntwo "))
        self.assertNotIn("\x1b", shown)


class TheQueue(WithHost):
    def setUp(self) -> None:
        super().setUp()
        self.host.send(MESSAGE, mto="jane@example.org")
        transaction.commit()

    def test_has_a_length(self) -> None:
        """What waits."""
        self.assertEqual(self.host.queueLength(), 1)

    def test_is_found_by_its_tab(self) -> None:
        """The console looks where mail is written."""
        from zope.sendmail.maildrop.mailqueue import location_of

        self.assertEqual(location_of(self.host), self.queue.location)

    def test_of_a_mail_host_is_found_if_there_is_one(self) -> None:
        """Else its tab says why there is none."""
        from Products.MailHost.MailHost import MailHost

        from zope.sendmail.maildrop.mailqueue import NoQueue, location_of

        host = MailHost("MailHost")
        with self.assertRaisesRegex(NoQueue, "sends directly"):
            location_of(host)
        host.smtp_queue, host.smtp_queue_directory = True, os.path.join(self.directory, "nowhere")
        with self.assertRaisesRegex(NoQueue, "has not been used yet"):
            location_of(host)


class WhoAsks(WithHost):
    """Changes through the web."""

    def request(self, method: str = "POST", **headers: str) -> Any:
        from Testing.makerequest import makerequest

        environ = {"REQUEST_METHOD": method, "SERVER_NAME": "zope.example.org", "SERVER_PORT": "80"}
        environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
        return makerequest(self.host, environ=environ).REQUEST

    def test_a_page_of_another_site_changes_nothing(self) -> None:
        """Nor one that does not say where it is from, nor a link."""
        from zExceptions import Forbidden

        own = "http://zope.example.org"
        for method, headers in (
            ("POST", {}),
            ("POST", {"origin": "http://evil.example.org"}),
            ("POST", {"origin": "null"}),
            ("POST", {"origin": own, "sec_fetch_site": "cross-site"}),
            ("POST", {"referer": "http://evil.example.org/" + own}),
            ("GET", {"origin": own}),
        ):
            with self.subTest(method, **headers), self.assertRaises(Forbidden):
                self.host.manage_makeChanges("evil", REQUEST=self.request(method, **headers))
        self.assertEqual(self.host.title, "Maildrop Host")

    def test_a_page_of_this_site_may(self) -> None:
        """By any of the three headers."""
        for headers in (
            {"origin": "http://zope.example.org"},
            {"sec_fetch_site": "same-origin", "origin": "https://proxy.example.org"},
            {"referer": "http://zope.example.org:80/MailHost/manage_main"},
        ):
            with self.subTest(**headers):
                self.host.manage_main = lambda: "the page"
                self.host.manage_makeChanges("Title", REQUEST=self.request(**headers))
                self.assertEqual(self.host.title, "Title")

    def test_what_urls_can_reach(self) -> None:
        """Pages, and the one that checks where a request is from; everything needs a permission."""
        from ZPublisher import zpublish_mark

        from zope.sendmail.maildrop.host import MaildropHost

        for name in ("setConfigPath", "addConfigPath", "getConfigPath", "getLog", "manage_restartQueueThread"):
            self.assertIs(zpublish_mark(getattr(MaildropHost, name)), False)
        self.assertEqual(zpublish_mark(MaildropHost.manage_makeChanges), ("POST",))

    def test_permissions(self) -> None:
        """Changing configuration for all that 2.3 protected by it, and for our tabs and settings."""
        from zope.sendmail.maildrop.host import MaildropHost
        from zope.sendmail.maildrop.views import ATTRIBUTES

        permissions = {name: each[0] for each in MaildropHost.__ac_permissions__ for name in each[1]}
        for name in (*ATTRIBUTES, "manage_main", "manage_log", "setConfigPath", "getLog"):
            self.assertEqual(permissions[name], "Change configuration", name)
        roles = MaildropHost.send__roles__
        self.assertEqual(roles.__name__, "Use mailhost services")
