-- A rate for all machines: when the next mail may go to a relay.

create table zope_sendmail.rate (
    queue smallint not null,
    relay text not null,
    next timestamptz not null,
    primary key (queue, relay)
) with (fillfactor = 10, autovacuum_vacuum_cost_delay = 0);
