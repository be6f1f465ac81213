-- Who had a mail before its owner, and by which lease, until it is written down what that one left: a processor may die, or
-- lose the answer, between its claim and that.
alter table zope_sendmail.mail add column was bigint, add column was_lease bigint;
