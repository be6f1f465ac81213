-- What processors tell operators about themselves and their relays, and which relays operators want tried.

create table zope_sendmail.processor_state (
    queue smallint not null,
    processor bigint not null,
    state text not null,
    primary key (queue, processor)
) with (fillfactor = 20, autovacuum_vacuum_cost_delay = 0);

create table zope_sendmail.probe (
    queue smallint not null,
    relay text not null,
    at timestamptz not null,
    primary key (queue, relay)
);
