-- What senders ask for: priority, keys; and who gets no mail.

alter table zope_sendmail.mail add column priority smallint not null default 1;  -- 0 high, 1 normal, 2 low
alter table zope_sendmail.mail add column expires timestamptz;  -- null: as the schedule of the queue says
drop index zope_sendmail.mail_fresh;
drop index zope_sendmail.mail_again;
create index mail_fresh on zope_sendmail.mail (queue, priority, id) where state = 0 and due is null;
create index mail_again on zope_sendmail.mail (queue, priority, due, id) where state = 0 and due is not null;
create index mail_expires on zope_sendmail.mail (queue, expires) where state = 0 and expires is not null;

-- Two mails with one key are one.  As long as its mail is staged, nobody else has the key or may have it.
create table zope_sendmail.key (
    queue smallint not null,
    key text collate "C" not null,
    mail uuid not null,                 -- it may have left
    message_id text not null,
    until timestamptz not null,         -- afterwards the key is free
    primary key (queue, key)
);
create index key_mail on zope_sendmail.key (mail);
create index key_until on zope_sendmail.key (until);

-- Who gets no mail.  Each change has the next version of its queue, so that processors read what is new to them only.
alter table zope_sendmail.queue add column suppressions bigint not null default 0;
create table zope_sendmail.suppression (
    queue smallint not null,
    address text collate "C" not null,  -- normalised
    reason text not null,
    since timestamptz not null,
    until timestamptz,                  -- null: for ever
    version bigint not null,
    removed boolean not null default false,
    primary key (queue, address)
);
create index suppression_version on zope_sendmail.suppression (queue, version);
