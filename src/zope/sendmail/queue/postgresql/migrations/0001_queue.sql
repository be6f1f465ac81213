-- The tables of a queue.  docs/explanation/decisions/postgresql.rst says why they look so.

create table zope_sendmail.queue (
    id smallint generated always as identity primary key,
    name text not null unique
);

-- One row for each mail.  A claim changes owner and lease only, which no index has: such updates stay on their page (HOT).
create table zope_sendmail.mail (
    id uuid primary key,                -- version 7: sorts by the time at which the mail was written
    queue smallint not null,
    state smallint not null default 0,  -- 0 waits, 1 held, 2 rejected, 3 staged
    due timestamptz,                    -- null: not tried yet, or to be tried at once
    owner bigint,                       -- the processor that has a lease on it
    lease bigint,
    since timestamptz not null default clock_timestamp(),
    size bigint not null,               -- octets of the message
    message_id text not null,
    envelope text not null,             -- JSON in ASCII
    record text,                        -- the last line of its history; null: never tried
    maker text                          -- host and process that staged it
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
create index mail_fresh on zope_sendmail.mail (queue, id) where state = 0 and due is null;
create index mail_again on zope_sendmail.mail (queue, due, id) where state = 0 and due is not null;
create index mail_apart on zope_sendmail.mail (queue, state, id) where state <> 0;
create index mail_message_id on zope_sendmail.mail (message_id);

-- The messages, in pieces of 256 KiB, so that neither side has a large one in memory at once.
create table zope_sendmail.body (
    mail uuid not null,
    no integer not null,
    data bytea not null,
    primary key (mail, no)
) with (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
alter table zope_sendmail.body alter column data set storage external;

create table zope_sendmail.history (
    mail uuid not null,
    no bigint generated always as identity,
    record text not null,
    primary key (mail, no)
);

-- What has left, for a week: a partition for each of nine days, emptied before it is used again.
create table zope_sendmail.sent (
    part smallint not null,
    queue smallint not null,
    at timestamptz not null,
    message_id text not null
) partition by list (part);
create index sent_message_id on zope_sendmail.sent (message_id);
do $$
begin
    for part in 0..8 loop
        execute format('create table zope_sendmail.sent_%s partition of zope_sendmail.sent for values in (%s)', part, part);
    end loop;
end
$$;

-- Unlogged: emptied when the server crashes or a standby takes over.  What was known of processors ends with that.
create unlogged table zope_sendmail.processor (
    id bigint primary key,
    beat bigint not null default 0,
    beat_at timestamptz not null default clock_timestamp(),  -- for people; what counts is whether the beat stands still
    ended timestamptz,                  -- taken for dead; it has to begin anew
    lost boolean not null default false,  -- it had leases before the server crashed, and did not come back
    host text not null default '',
    pid integer not null default 0
) with (fillfactor = 50);

-- How far a processor has come with the mails that it has in hand.
create unlogged table zope_sendmail.attempt (
    processor bigint not null,
    slot integer not null,
    mail uuid,
    lease bigint,
    phase smallint not null default 0,  -- 0 nothing, 1 opened, 2 the last byte may have gone, 3 the relay has it
    ended boolean not null default false,
    primary key (processor, slot)
) with (fillfactor = 10, autovacuum_vacuum_cost_delay = 0);

-- Since when the server lives without a crash; made anew by the first beat after one.
create unlogged table zope_sendmail.epoch (
    one boolean primary key default true check (one),
    since timestamptz not null default clock_timestamp()
);
insert into zope_sendmail.epoch (since) values ('-infinity');
