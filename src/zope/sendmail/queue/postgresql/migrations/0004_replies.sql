-- What the relay said of a mail that has left: the last line of its history.

alter table zope_sendmail.sent add column record text;
