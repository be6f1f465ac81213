-- name: queue_id
select id from zope_sendmail.queue where name = %(name)s

-- name: make_queue
insert into zope_sendmail.queue (name) values (%(name)s) on conflict do nothing

-- name: identity
select (select c.system_identifier::text || '/' || d.oid::text from pg_control_system() c, pg_database d
        where d.datname = current_database()),
    (select system::text || '/' || database::text from zope_sendmail.identity)

-- name: place
-- Which database this is, whether or not it has tables of ours.
select c.system_identifier::text || '/' || d.oid::text from pg_control_system() c, pg_database d
where d.datname = current_database()

-- name: adopt
insert into zope_sendmail.identity (system, database)
    select c.system_identifier, d.oid from pg_control_system() c, pg_database d where d.datname = current_database()
on conflict (one) do update set system = excluded.system, database = excluded.database

-- name: settle_in
-- For a connection of our own: each statement is planned once, and not for a table that happened to be empty then.  How
-- many mails a claim wants is not known to the plan, which takes them for a tenth of all: other joins would read the
-- whole table for a few of its rows.  A stricter isolation, as a role or a database may have, would only make some of
-- our statements fail beside others of ours: each is a transaction of its own.
select set_config('default_transaction_isolation', 'read committed', false),
    set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
    set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
    set_config('jit', 'off', false)

-- name: hello
select max(version), pg_backend_pid() from zope_sendmail.schema_version

-- name: register
-- A processor comes, or comes back after a crash of the server: then it says what it has in hand.
with mine as (
    insert into zope_sendmail.processor (id, host, pid) values (%(me)s, %(host)s, %(pid)s)
    on conflict do nothing returning id
)
insert into zope_sendmail.attempt (processor, slot, mail, lease, phase)
    select mine.id, s.slot, s.mail, s.lease, s.phase
    from mine, unnest(%(slots)s::int[], %(mails)s::uuid[], %(leases)s::bigint[], %(phases)s::smallint[])
        as s (slot, mail, lease, phase)

-- name: more_slots
-- The lock on the processor's row: nobody takes it for dead while its slots are being made.
with mine as (select id from zope_sendmail.processor where id = %(me)s and ended is null for share)
insert into zope_sendmail.attempt (processor, slot) select mine.id, s from mine, unnest(%(slots)s::int[]) as s

-- name: beat
-- The epoch first: after a crash it is the first beat that begins a new one.
with began as (insert into zope_sendmail.epoch default values on conflict do nothing),
mine as (update zope_sendmail.processor set beat = beat + 1, beat_at = clock_timestamp() where id = %(me)s returning id, ended)
select (select extract(epoch from since)::float8 from zope_sendmail.epoch), extract(epoch from clock_timestamp())::float8,
    (select count(*) from mine), (select ended is not null from mine)

-- name: processors
select id, beat, ended is not null, lost from zope_sendmail.processor

-- name: end_processor
-- Taken for dead: all its slots are closed in the same moment.
with gone as (
    update zope_sendmail.processor set ended = clock_timestamp() where id = %(id)s and beat = %(beat)s and ended is null
    returning id
)
update zope_sendmail.attempt set ended = true from gone where attempt.processor = gone.id

-- name: leave
with gone as (
    update zope_sendmail.processor set ended = clock_timestamp() where id = %(me)s returning id
)
update zope_sendmail.attempt set ended = true from gone where attempt.processor = gone.id

-- name: forget_processor
-- Of one that left with nothing in hand nothing has to be known.
with gone as (delete from zope_sendmail.processor where id = %(me)s and ended is null returning id)
delete from zope_sendmail.attempt using gone where attempt.processor = gone.id

-- name: forget_ended
-- After an hour every lease of a dead processor has been taken over: each pass over the queue meets it.
with gone as (
    delete from zope_sendmail.processor where ended < clock_timestamp() - interval '1 hour' returning id
)
delete from zope_sendmail.attempt using gone where attempt.processor = gone.id

-- name: bury_lost
-- After a crash: owners that did not come back within the time of grace.  Reads the whole table, once for each crash.
insert into zope_sendmail.processor (id, ended, lost)
    select distinct known.id, clock_timestamp(), true
    from zope_sendmail.mail m, lateral (values (m.owner), (m.was)) as known (id)
    where m.owner is not null and known.id is not null and exists (
        select from zope_sendmail.epoch where since < clock_timestamp() - interval '5 s' and since > '-infinity')
on conflict do nothing

-- name: withdraw
-- What this processor sent in its last seconds and a crash brought back.  Names are never given twice.  What it was told
-- by the relay has gone with the crash.  The partition is that of `departures.part_of`.
with gone as (
    delete from zope_sendmail.mail where id = any(%(ids)s) and (owner is null or owner = %(me)s) returning id, queue, message_id
),
told as (delete from zope_sendmail.history h using gone where h.mail = gone.id),
noted as (
    insert into zope_sendmail.sent (part, queue, at, message_id)
        select floor(extract(epoch from clock_timestamp()) / 86400)::bigint %% 9, queue, clock_timestamp(), message_id
        from gone where message_id <> ''
)
delete from zope_sendmail.body using gone where body.mail = gone.id

-- name: unanswered
-- Of which claims, whose answer was lost, this processor has mail.  Reads the whole table.
select distinct lease from zope_sendmail.mail where owner = %(me)s and lease = any(%(leases)s)

-- name: inherited
select processor, mail, lease, phase from zope_sendmail.attempt where processor = any(%(dead)s) and phase > 0
    and mail = any(%(mails)s)

-- name: notify
select pg_notify('zope_sendmail', %(payload)s), set_config('synchronous_commit', 'off', true)
