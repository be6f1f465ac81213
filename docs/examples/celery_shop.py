"""Tasks of Celery: mail of a task that fails, or that is tried again, does not leave.

Started as usual: ``celery -A celery_shop worker``.  The sender is made once; each process of the worker sends what it
wrote.
"""

import os

import transaction
from celery import Celery

from zope.sendmail.sender import MailSender

app = Celery("shop", broker=os.environ["BROKER"])
if "CELERY_CONFIG" in os.environ:
    app.config_from_object(os.environ["CELERY_CONFIG"])
relay, _, port = os.environ["RELAY"].rpartition(":")
sender = MailSender(os.environ["MAIL_QUEUE"], relay, int(port), transaction_manager=transaction.manager)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=True)
def confirm(customer, *, fail=False):
    with transaction.manager:  # the mail leaves if the block ends well
        sender.send("shop@example.org", [customer], "From: shop@example.org\nSubject: Your order\n\nThank you!\n")
        if fail:
            raise ZeroDivisionError
