"""A shop in Flask with SQLAlchemy: an order and its mail are there both, or neither."""

from flask import Flask, request
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

from zope.sendmail.contrib.flask import Mail
from zope.sendmail.interfaces import InvalidMail

session = scoped_session(sessionmaker())
mail = Mail(session=session)


def make_app(**settings):
    app = Flask(__name__)
    app.config.from_mapping(settings)
    session.configure(bind=create_engine(settings["DATABASE"]))
    mail.init_app(app)

    @app.post("/orders")
    def order():
        customer = request.form["customer"]
        session.execute(text("insert into orders values (:customer)"), {"customer": customer})
        mail.send("shop@example.org", [customer], "From: shop@example.org\nSubject: Your order\n\nThank you!\n")
        if "fail" in request.form:
            raise ZeroDivisionError
        session.commit()
        return "ordered", 201

    @app.errorhandler(InvalidMail)
    def refused(error):
        return str(error), 422

    @app.teardown_appcontext
    def end(error):
        session.remove()

    return app
