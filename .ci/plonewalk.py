"""How a Plone site sends mail, as its editors see it: with the zope.sendmail that can be imported.  Prints JSON.

A site in memory, a relay on 127.0.0.1 that knows one recipient, does not know another and wants to see the third one
again later; the callers of Plone that send mail, each with each recipient and with the relay down.
"""

import contextlib
import json
import os
import socketserver
import sys
import tempfile
import threading
from smtplib import SMTPException
from types import SimpleNamespace

ZOPE_CONF = """%define INSTANCE {home}
instancehome $INSTANCE
clienthome $INSTANCE/var
<zodb_db main>
  <mappingstorage>
  </mappingstorage>
  mount-point /
</zodb_db>
"""

SITE_ZCML = """<configure xmlns="http://namespaces.zope.org/zope" xmlns:meta="http://namespaces.zope.org/meta"
  xmlns:five="http://namespaces.zope.org/five">
<include package="Products.Five" />
<meta:redefinePermission from="zope2.Public" to="zope.Public" />
<five:loadProducts file="meta.zcml" />
<five:loadProducts />
<five:loadProductsOverrides />
</configure>
"""

RECIPIENTS = {
    "good": "good@example.org",
    "unknown": "unknown@example.org",
    "greylisted": "grey@example.org",
    "relay down": "good@example.org",
}


class Dialogue(socketserver.StreamRequestHandler):
    """A relay that says what Postfix would say."""

    def handle(self):
        self.say("220 relay")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.say("354 go on")
                while (line := self.rfile.readline()) not in {b".\r\n", b""}:
                    pass
                self.server.count += 1
                self.say("250 2.0.0 queued")
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            elif verb == b"RCPT" and b"unknown@" in line:
                self.say("550 5.1.1 no such user")
            elif verb == b"RCPT" and b"grey@" in line:
                self.say("450 4.2.0 greylisted")
            else:
                self.say("250 ok")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class Relay(socketserver.ThreadingTCPServer):
    """Counts the mails that it took."""

    count = 0
    daemon_threads = True


def start_zope():
    """Zope with nothing on disk that stays."""
    home = tempfile.mkdtemp()
    os.makedirs(os.path.join(home, "etc"))
    os.makedirs(os.path.join(home, "var"))
    for name, text in ("zope.conf", ZOPE_CONF.format(home=home)), ("site.zcml", SITE_ZCML):
        with open(os.path.join(home, "etc", name), "w", encoding="utf-8") as file:
            file.write(text)
    import Zope2
    from Testing.makerequest import makerequest
    from Zope2.Startup.run import configure_wsgi

    configure_wsgi(os.path.join(home, "etc", "zope.conf"))
    return makerequest(Zope2.app())


def start_site():
    """A Plone site in memory, and its registry."""
    app = start_zope()
    import transaction
    from AccessControl.SecurityManagement import newSecurityManager
    from AccessControl.users import system
    from plone.registry.interfaces import IRegistry
    from Products.CMFPlone.factory import addPloneSite
    from zope.component import getUtility
    from zope.component.hooks import setSite
    from zope.globalrequest import setRequest

    newSecurityManager(None, system)
    site = addPloneSite(app, "plone", title="Plone", setup_content=False)
    setSite(site)
    site.setupCurrentSkin(app.REQUEST)
    setRequest(app.REQUEST)
    registry = getUtility(IRegistry)
    registry["plone.email_from_address"] = "site@example.org"
    registry["plone.email_from_name"] = "Site"
    transaction.commit()
    return site, registry


def api(site, registry, to):
    """``plone.api.portal.send_email``, in the transaction."""
    from plone import api

    api.portal.send_email(recipient=to, sender="site@example.org", subject="x", body="Grüße")


def api_immediate(site, registry, to):
    """The same, at once."""
    from plone import api

    api.portal.send_email(recipient=to, sender="site@example.org", subject="x", body="Grüße", immediate=True)


def control_panel(site, registry, to):
    """The test mail of the control panel, which goes to the site's own address."""
    from Products.CMFPlone.controlpanel.browser.mail import MailControlPanelForm
    from Products.statusmessages.interfaces import IStatusMessage

    registry["plone.email_from_address"] = to
    form = MailControlPanelForm(site, site.REQUEST)
    form.save = lambda: True
    MailControlPanelForm.handle_test_action.func(form, None)
    said = [str(each.type) for each in IStatusMessage(site.REQUEST).show()]
    registry["plone.email_from_address"] = "site@example.org"
    return f"says {said[-1]}" if said else ""


def content_rule(site, registry, to):
    """The mail action of a content rule."""
    from plone.app.contentrules.actions.mail import MailAction, MailActionExecutor

    action = MailAction()
    action.subject, action.source, action.recipients, action.message = "x", "site@example.org", to, "Text"
    action.exclude_actor = False
    MailActionExecutor(site, action, SimpleNamespace(object=site))()


def registration(site, registry, to):
    """The mail to a new member."""
    member = f"member{len(site.acl_users.getUserNames())}"
    site.portal_registration.addMember(member, "Secret-12345!x", properties={"username": member, "email": to})
    site.portal_registration.registeredNotify(member)


CALLERS = {
    "plone.api send_email": api,
    "plone.api send_email, immediate": api_immediate,
    "control panel, test mail": control_panel,
    "content rule, mail action": content_rule,
    "registration": registration,
}


def walk(call, site, registry, to, relay):
    """What the editor sees, and whether the mail was sent."""
    import transaction

    before = relay.count
    transaction.begin()
    try:
        seen = call(site, registry, to) or ""
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        transaction.abort()
        kin = "SMTPException" if isinstance(error, SMTPException) else "OSError" if isinstance(error, OSError) else "?"
        return f"{type(error).__name__} ({kin}) in the request"
    try:
        transaction.commit()
    except Exception as error:  # noqa: BLE001 - likewise
        transaction.abort()
        return f"commit fails: {type(error).__name__}"
    return ", ".join(filter(None, [seen, "sent" if relay.count > before else "not sent, the request goes on"]))


def main():
    """Walk all of it."""
    relay = Relay(("127.0.0.1", 0), Dialogue)
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    site, registry = start_site()
    import transaction

    import zope.sendmail

    results = {}
    for about, to in RECIPIENTS.items():
        if about == "relay down":
            relay.shutdown()
            relay.server_close()
        registry["plone.smtp_host"], registry["plone.smtp_port"] = "127.0.0.1", relay.server_address[1]
        site.MailHost.smtp_host, site.MailHost.smtp_port = "127.0.0.1", relay.server_address[1]
        transaction.commit()
        for caller, call in CALLERS.items():
            with contextlib.redirect_stdout(sys.stderr):
                results[f"{caller}|{about}"] = walk(call, site, registry, to, relay)
    print(json.dumps({"where": zope.sendmail.__file__, "results": results}))


if __name__ == "__main__":
    main()
