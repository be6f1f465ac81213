"""A shop in Pyramid with the explicit transaction manager of its templates."""

import transaction
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPUnprocessableEntity
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from zope.sqlalchemy import mark_changed, register

from zope.sendmail.interfaces import InvalidMail


def order(request):
    customer = request.params["customer"]
    session = Session(request.registry["engine"])
    register(session, transaction_manager=request.tm)
    session.execute(text("insert into orders values (:customer)"), {"customer": customer})
    mark_changed(session)
    try:
        request.mailer.send(
            "shop@example.org", [customer], "From: shop@example.org\nSubject: Your order\n\nThank you!\n"
        )
    except InvalidMail as error:
        raise HTTPUnprocessableEntity(str(error)) from error
    if "fail" in request.params:
        raise ZeroDivisionError
    request.response.status_code = 201
    return "ordered"


def main(global_config, **settings):
    settings["tm.manager_hook"] = lambda request: transaction.TransactionManager(explicit=True)
    with Configurator(settings=settings) as config:
        if settings.get("testing"):
            config.include("zope.sendmail.contrib.pyramid.testing")
        config.include("pyramid_tm")
        config.include("zope.sendmail.contrib.pyramid")
        config.registry["engine"] = create_engine(settings["database"])
        config.add_route("orders", "/orders")
        config.add_view(order, route_name="orders", request_method="POST", renderer="string")
        return config.make_wsgi_app()
