-- Mails that were moved to another queue and are not known to have come up there yet; see zope.sendmail.queue.moving.

create table zope_sendmail.moved (
    queue smallint not null,
    mail uuid not null,
    at timestamptz not null default clock_timestamp(),  -- when it was written: the other queue's name for it tells that
    primary key (queue, mail)
);

-- When a relay may get the next mail, whichever machine sends it.  Unlogged: after a crash it begins anew.
create unlogged table zope_sendmail.turn (
    relay text primary key,
    next timestamptz not null
) with (fillfactor = 10, autovacuum_vacuum_cost_delay = 0);
