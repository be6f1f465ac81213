"""django-mailer and django-post-office as measured senders, over PostgreSQL if there is one, else SQLite."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from letters import RECIPIENT, SENDER, SUBJECT, body, measured
from serve import serve

_now: dict[str, Any] = {}


def prepare(
    place: str, relay: dict[str, Any], settings: dict[str, Any], app: str, database: dict[str, Any] | None
) -> dict[str, Any]:
    """Configure Django, and make the tables if they are not there."""
    import django
    from django.conf import settings as of_django
    from django.core.management import call_command

    os.makedirs(place, exist_ok=True)
    os.chdir(place)  # where django-mailer's lock is by default
    os.environ["SSL_CERT_FILE"] = relay["cafile"]  # Django verifies the relay
    login = (
        {"EMAIL_USE_TLS": True, "EMAIL_HOST_USER": "name", "EMAIL_HOST_PASSWORD": "secret"} if relay["login"] else {}
    )
    of_django.configure(
        DATABASES={"default": database or {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(place, "db")}},
        INSTALLED_APPS=["django.contrib.contenttypes", app],
        EMAIL_BACKEND="mailer.backend.DbBackend" if app == "mailer" else "post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=relay["port"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
        **{**login, **settings},
    )
    logging.disable(logging.CRITICAL)
    django.setup()
    if not os.path.exists(os.path.join(place, "migrated")):
        call_command("migrate", verbosity=0)
        with open(os.path.join(place, "migrated"), "w", encoding="ascii"):
            pass
    _now.update(place=place, app=app, on_postgresql=database is not None)
    return {}


def enqueue(first: int, transactions: int, mails: int, size: int) -> dict[str, Any]:
    """Commit so many transactions, each with so many mails."""
    from django.db import transaction

    def work() -> None:
        for start in range(first, first + transactions * mails, mails):
            with transaction.atomic():
                _put(start, mails, size)

    return measured(work)


def _put(first: int, mails: int, size: int) -> None:
    """Queue them as each package's own pages advise: many with one call."""
    numbers = range(first, first + mails)
    if _now["app"] == "mailer":
        from django.core.mail import EmailMessage, get_connection

        get_connection().send_messages(
            [EmailMessage(SUBJECT, body(size), SENDER, [RECIPIENT], headers={"X-Number": str(n)}) for n in numbers]
        )
        return
    from post_office import mail

    asked = [
        {
            "recipients": [RECIPIENT],
            "sender": SENDER,
            "subject": SUBJECT,
            "message": body(size),
            "headers": {"X-Number": str(number)},
        }
        for number in numbers
    ]
    if mails == 1:
        mail.send(**asked[0])
    else:
        mail.send_many(asked)


def fill(first: int, mails: int, size: int) -> dict[str, Any]:
    """Put them into the database by thousands."""
    from django.db import connection, transaction

    for start in range(first, first + mails, 1000):
        with transaction.atomic():
            _put(start, min(1000, first + mails - start), size)
    if _now["on_postgresql"]:
        with connection.cursor() as cursor:
            cursor.execute("analyze")
    os.sync()
    return {}


def drain(processes: int = 1) -> dict[str, Any]:
    """Send what is there, as ``send_mail`` and ``send_queued_mail`` do."""
    if _now["app"] == "mailer":
        from mailer.engine import send_all

        return measured(send_all)
    from post_office.mail import send_queued_mail_until_done

    lock = os.path.join(_now["place"], "post_office")
    return measured(lambda: send_queued_mail_until_done(lock, processes))


def stand() -> dict[str, Any]:
    """Begin to send whatever comes, as ``runmailer_pg`` or ``runmailer`` does."""
    from mailer.engine import send_loop

    loop = send_loop
    if _now["on_postgresql"]:
        from mailer import postgres

        postgres.signal.signal = lambda *_: None  # which only the main thread may; it is for Control-C
        loop = postgres.postgres_send_loop
    threading.Thread(target=loop, daemon=True).start()
    return {}


def moment(number: int, size: int) -> dict[str, Any]:
    """Commit one mail; return when the commit began, and when it was done."""
    from django.db import transaction

    with transaction.atomic():
        _put(number, 1, size)
        began = time.monotonic()
    return {"began": began, "done": time.monotonic()}


def waiting() -> dict[str, Any]:
    """Return how many mails are still to be sent."""
    if _now["app"] == "mailer":
        from mailer.models import Message

        return {"mails": Message.objects.count()}
    from post_office.models import STATUS, Email

    return {"mails": Email.objects.filter(status__in=[STATUS.queued, STATUS.requeued]).count()}


if __name__ == "__main__":
    serve({each.__name__: each for each in (prepare, enqueue, fill, drain, stand, moment, waiting)})
