"""The daemon of maildrop: sends what is in the spool of a configuration.

Built on the processor and the mailer of this package; here are the process, its signals, and what the
configuration's words mean for both.  It starts while the relay is down, and nothing that lies in the spool ends it.
Fails with `ConfigError`, `AlreadyRunning` and `OSError` before it has begun.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from zope.sendmail.cli.asowner import become_owner
from zope.sendmail.config.options import mailer_keywords, merge
from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.config.settings import LONGEST, Tls
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import make_directories
from zope.sendmail.maildrop.config import TLS, Config, ConfigError, read_config
from zope.sendmail.maildrop.pidfile import PidFile
from zope.sendmail.maildrop.runlog import RunLog, RunLogHandler
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.reporting import maillog, notifier
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk
from zope.sendmail.system.trust import check_place

#: Seconds that subscribers to mail events have before the process ends, and between two looks at a stop.
_TELLING, _SLICE = 5.0, 0.2

log = logging.getLogger("zope.sendmail.maildrop.daemon")

#: What these say is in the run log, too.
_LOGS = (maillog.processor_log, log)


class MaildropProcessor(QueueProcessorThread):
    """A processor that ends its run in the log when it rests."""

    def __init__(self, config: Config, queue: IMailQueue, runlog: RunLog, *, clock: Clock | None = None) -> None:
        mailer = make_mailer(config)
        options = dict(config.processor_options)
        interval = min(max(config.interval, _SLICE), LONGEST)
        super().__init__(interval, queue=queue, mailer=mailer, clock=clock, tell=runlog.tell, **options)
        self._runlog = runlog

    def about_to_rest(self) -> None:
        """End the run in the log."""
        self._runlog.finish()


class Daemon:
    """One daemon.  `config` is read again at SIGHUP."""

    def __init__(self, config: Config, *, echo: bool = False) -> None:
        self.config = config
        self._runlog = RunLog(config.log_file, Clock(), echo=echo)
        self._pid_file = PidFile(config.pid_file)
        self._processor: MaildropProcessor | None = None
        self._is_stopping = False
        self._is_reloading = False

    def serve(self, ready: Callable[[], None] = lambda: None) -> int:
        """Send until SIGTERM or SIGINT; `ready` is called when everything is in place.  Returns the exit status."""
        prepare(self.config)
        with (
            self._signals(),
            self._only_one(),
            self._logging(),
        ):  # a program that finds the pid file may send a signal at once
            queue = make_queue(self.config)
            self._check()
            ready()
            self._serve(queue)
        notifier.flush(_TELLING)
        return os.EX_OK

    def _serve(self, queue: IMailQueue) -> None:
        while not self._is_stopping:
            self._run(queue, forever=True)
            if self._is_reloading and not self._is_stopping:
                self._reload()
                queue = open_configured_queue(self.config)

    def once(self) -> int:
        """Send once what is due; returns the exit status: 1 if a person should look, 75 if time should help."""
        prepare(self.config)
        self._pid_file.check_older_daemon()
        queue = make_queue(self.config)
        before = _set_aside(queue)
        with self._signals(), self._logging():
            self._check()
            processor = self._run(queue, forever=False)
        if processor.tally[Answer.REJECTED] or _set_aside(queue) > before or any(queue.admin.unusable()):
            return 1
        left = processor.tally[Answer.DEFERRED] or processor.tally[Answer.UNKNOWN] or processor.fault is not None
        return os.EX_TEMPFAIL if left else os.EX_OK

    def _run(self, queue: IMailQueue, *, forever: bool) -> MaildropProcessor:
        self._processor = processor = MaildropProcessor(self.config, queue, self._runlog)
        if self._is_stopping or self._is_reloading:  # a signal was faster
            processor.stop()
        try:
            processor.run(forever=forever)
        finally:
            self._runlog.finish()
        return processor

    def _reload(self) -> None:
        """Read the configuration again; if it cannot be used, that is told, and the former one goes on."""
        self._is_reloading = False
        former = self.config
        try:
            self.config = read_config(former.path)
            self._check()
            prepare(self.config)
        except (ConfigError, OSError) as error:
            self.config = former
            log.error("The configuration is not reloaded, the former one goes on: %s", error)  # noqa: TRY400 - says it all
            return
        if former.pid_file != self.config.pid_file:
            log.warning("The pid file stays %s until the daemon is restarted.", former.pid_file)
        self._runlog.path = self.config.log_file
        log.info("The configuration %s was reloaded.", self.config.path)

    def _check(self) -> None:
        """Raise what is wrong with the relay's settings, and tell what may surprise."""
        make_mailer(self.config)
        if _is_in_clear(self.config):
            log.warning(
                "MAILDROP_TLS=0 with a login: the password goes to %s in clear; MAILDROP_TLS=2 protects it.",
                self.config.smtp_host,
            )

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the pid file.  Raises `AlreadyRunning`.

        On a disk without room for it what is due is sent first, which makes room.
        """
        try:
            self._hold_pid_file()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            log.warning("There is no room for the pid file (%s); what is due is sent first.", error)
            self._run(make_queue(self.config), forever=False)
            self._hold_pid_file()
        try:
            yield
        finally:
            self._pid_file.release()

    def _hold_pid_file(self) -> None:
        make_directories(Disk(), os.path.dirname(self._pid_file.path))
        self._pid_file.hold()

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Trouble stands in the run log as well."""
        handler = RunLogHandler(self._runlog)
        for each in _LOGS:
            each.addHandler(handler)
        try:
            yield
        finally:
            for each in _LOGS:
                each.removeHandler(handler)
            self._runlog.finish()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end after the message in hand; SIGHUP reads the configuration again."""
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._ask_reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True
        if self._processor is not None:
            self._processor.stop()

    def _ask_reload(self, *_: object) -> None:
        self._is_reloading = True
        if self._processor is not None:
            self._processor.stop()


def make_mailer(config: Config) -> SMTPMailer:
    """Return the mailer that the configuration describes.  Raises `ConfigError`."""
    options = dict(config.relay_options)
    password = config.read_password() if config.login else ""
    proves = bool(password) or not options.keys().isdisjoint(("token_command", "token_file", "auth"))
    said = {
        "hostname": config.smtp_host,
        "port": config.smtp_port,
        "username": config.login if config.login and proves else None,
        "password": password,
        "tls": TLS[config.tls],
        "verify": config.verify,
        "cafile": config.cafile,
        "allow_clear_password": _is_in_clear(config),
        "rate": 1.0 / config.wait_interval if config.wait_interval else None,
        "connections": 1,  # as 2.3; else MAILDROP_BATCH would not be what it was
        "mails_per_connection": config.batch or None,
    }
    try:
        mailer = SMTPMailer.configured(**mailer_keywords(merge(({**said, **options},))))
        if password and not config.password:
            follow_password_file(mailer, {"password_file": config.password_file})
        mailer.relay_settings()
    except ValueError as error:
        raise ConfigError(f"{config.path}: {error}") from error
    return mailer


def _is_in_clear(config: Config) -> bool:
    """Return whether the words of the configuration are that a password goes without TLS."""
    return TLS[config.tls] is Tls.NEVER and bool(config.login) and config.has_password


def open_configured_queue(config: Config) -> IMailQueue:
    """Return the queue over the spools of the configuration."""
    # In a database all mail is ours, and has a Message-Id.
    completing = {} if config.database else {"add_message_id": config.add_messageid}
    return open_queue(config.location, **completing, **config.queue_options)


def make_queue(config: Config) -> IMailQueue:
    """Return the same, proved good.

    Raises what is wrong with it; a processor would go on for ever hoping that it heals.
    """
    queue = open_configured_queue(config)
    try:
        queue.claim(0)
    except ValueError as error:
        raise ConfigError(f"{config.path}: {error}") from error
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = queue.location  # a full disk names no file
        raise
    return queue


def check(config: Config) -> None:
    """Raise what would keep a daemon of this configuration from its work; that a relay is down would not."""
    make_mailer(config)
    prepare(config)
    make_queue(config).close()


def prepare(config: Config) -> None:
    """Make the directories of log and pid file, where no other user can have put something in our way.

    Root goes on as the owner of the first spool, which could not use root's files.  A disk without room for them is
    passed over: mail can leave without a log.
    """
    become_owner(config.place)
    for path in (config.log_file, config.pid_file):
        check_place(path)
        try:
            make_directories(Disk(), os.path.dirname(path))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise


def _set_aside(queue: IMailQueue) -> int:
    count: Mapping[State, int] = queue.admin.count()
    return count.get(State.REJECTED, 0) + count.get(State.HELD, 0)


def detach(serve: Callable[[Callable[[], None]], int]) -> str:
    """Call `serve` in a process of its own that belongs to no terminal.

    Returns when `serve` has called its argument: the empty text, or, if it did not come so far, why.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        _become_daemon(serve, write_end)
    os.close(write_end)
    with open(read_end, "rb") as answer:
        said = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return "" if said == "ready" else said or "the daemon died while it started"


def _become_daemon(serve: Callable[[Callable[[], None]], int], write_end: int) -> NoReturn:
    """Fork once more, in the child, so that no terminal can ever be ours, and run."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)

    def ready() -> None:
        os.write(write_end, b"ready")
        os.close(write_end)

    status = 1
    try:
        status = serve(ready)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the terminal is told
        with contextlib.suppress(OSError):
            os.write(write_end, (str(error) or repr(error)).encode("utf-8", "replace")[:4000])
        log.critical("The daemon ends: %s: %s", type(error).__name__, error)
    finally:
        logging.shutdown()
        os._exit(status)
