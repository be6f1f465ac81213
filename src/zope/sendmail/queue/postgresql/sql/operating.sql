-- name: count
select case when state = 0 and owner is not null and exists (
            select from zope_sendmail.processor p where p.id = owner and p.ended is null) then 4
        when state = 0 and due > to_timestamp(%(now)s) and coalesce(record not like '{"state":"deferred"%%', true) then 5
        else state end,
    record like '{"state":"deferred"%%' and due is not null, count(*)
from zope_sendmail.mail where queue = %(queue)s and state < 10 group by 1, 2

-- name: oldest
select extract(epoch from case when record is null then greatest(since, due) else since end)::float8
from zope_sendmail.mail where queue = %(queue)s and state = 0
    and (due is null or due <= to_timestamp(%(now)s) or record like '{"state":"deferred"%%') order by id limit 1

-- name: page
select id, state, owner is not null and exists (
        select from zope_sendmail.processor p where p.id = owner and p.ended is null),
    extract(epoch from since)::float8, size, message_id, envelope, record
from zope_sendmail.mail
where id > %(after)s and queue = %(queue)s and state < 3 order by id limit %(limit)s

-- name: page_apart
select id, state, false, extract(epoch from since)::float8, size, message_id, envelope, record
from zope_sendmail.mail
where id > %(after)s and queue = %(queue)s and state = %(state)s and state <> 0 order by id limit %(limit)s

-- name: by_message_id
select id, state, owner is not null and exists (
        select from zope_sendmail.processor p where p.id = owner and p.ended is null),
    extract(epoch from since)::float8, size, message_id, envelope, record
from zope_sendmail.mail where message_id = %(message_id)s and queue = %(queue)s and state < 3 order by id limit 100

-- name: sent
select extract(epoch from at)::float8, record from zope_sendmail.sent
where message_id = %(message_id)s and queue = %(queue)s and at > to_timestamp(%(after)s) order by at desc limit 1

-- name: names
select id from zope_sendmail.mail where id > %(after)s and queue = %(queue)s and state < 3 order by id limit %(limit)s

-- name: one
select id, state, owner is not null and exists (
        select from zope_sendmail.processor p where p.id = owner and p.ended is null),
    extract(epoch from since)::float8, size, message_id, envelope, record
from zope_sendmail.mail where id = %(id)s and queue = %(queue)s and state < 10

-- name: these
select id, state, owner is not null and exists (
        select from zope_sendmail.processor p where p.id = owner and p.ended is null),
    extract(epoch from since)::float8, size, message_id, envelope, record
from zope_sendmail.mail where id = any(%(ids)s) and queue = %(queue)s

-- name: history
select record from zope_sendmail.history where mail = %(mail)s order by no

-- name: take
-- An operator's verb needs the mail to itself: its row is locked until the verb is done.
select m.state, m.owner, m.lease, m.record, m.envelope, p.id is not null and p.ended is null, coalesce(w.lost, true),
    p.id is null and not coalesce(
        (select since < clock_timestamp() - interval '5 s' from zope_sendmail.epoch), false),
    (select a.phase from zope_sendmail.attempt a where a.processor = coalesce(m.was, m.owner) and a.mail = m.id
        and a.lease = coalesce(m.was_lease, m.lease)),
    m.since > clock_timestamp() - interval '1 hour'
from zope_sendmail.mail m left join zope_sendmail.processor p on p.id = m.owner
    left join zope_sendmail.processor w on w.id = coalesce(m.was, m.owner)
where m.id = %(id)s and m.queue = %(queue)s and m.state < 10 for update of m

-- name: change
-- A lease that no processor has, for those that leave the mail alone: see `changed`.
with kept as (
    update zope_sendmail.mail set state = %(state)s, due = to_timestamp(%(due)s), owner = null, lease = -1,
        was = null, was_lease = null, record = %(record)s
    where id = %(id)s returning id, queue
),
counted as (update zope_sendmail.queue q set changes = changes + 1 from kept where q.id = kept.queue)
insert into zope_sendmail.history (mail, record) select id, %(record)s from kept

-- name: readdress
update zope_sendmail.mail set envelope = %(envelope)s where id = %(id)s

-- name: remove
with gone as (delete from zope_sendmail.mail where id = %(id)s returning id, queue, state),
counted as (update zope_sendmail.queue q set changes = changes + 1 from gone where q.id = gone.queue),
keys as (delete from zope_sendmail.key k using gone where k.mail = gone.id and gone.state = 3),
bodies as (delete from zope_sendmail.body b using gone where b.mail = gone.id)
delete from zope_sendmail.history h using gone where h.mail = gone.id

-- name: forget_sent
delete from zope_sendmail.sent where part = %(part)s and at < to_timestamp(%(before)s)

-- name: empty_partition
truncate zope_sendmail.sent_{part}

-- name: oldest_in_partition
select extract(epoch from min(at))::float8 from zope_sendmail.sent where part = %(part)s

-- name: waiting
select extract(epoch from since)::float8, id from (
    (select since, id from zope_sendmail.mail
        where queue = %(queue)s and state = 0 and due is null and owner is null order by id limit %(limit)s)
    union all
    (select due, id from zope_sendmail.mail
        where queue = %(queue)s and state = 0 and due <= to_timestamp(%(now)s) and owner is null
        order by due limit %(limit)s)
) as due order by 1

-- name: in_doubt
select id, extract(epoch from since)::float8, coalesce(maker, '') from zope_sendmail.mail
where queue = %(queue)s and state = 3 and since < clock_timestamp() - interval '1 hour' order by id limit %(limit)s

-- name: pins
-- What keeps vacuum from removing mails that have gone: every claim passes over them.
select format('the session %%s of %%s (%%s)', pid, usename, coalesce(nullif(application_name, ''), 'without a name')),
    extract(epoch from clock_timestamp() - xact_start)::float8
from pg_stat_activity
where backend_xmin is not null and xact_start < clock_timestamp() - interval '5 min' and pid <> pg_backend_pid()
union all
select format('the prepared transaction %%L of %%s', gid, owner), extract(epoch from clock_timestamp() - prepared)::float8
from pg_prepared_xacts where prepared < clock_timestamp() - interval '5 min'
union all
select format('the replication slot %%s', slot_name), null from pg_replication_slots
where xmin is not null and age(xmin) > 100000
limit 5

-- name: durability
select current_setting('fsync'), current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
    (select count(*) from pg_stat_replication where state = 'streaming')

-- name: pass_on_rights
-- Whoever may use the table of mails may use those that a later version has made.
do $$
declare
    granted record;
    made record;
begin
    for granted in
        select distinct a.grantee::regrole as who, a.privilege_type as what
        from pg_class c, aclexplode(c.relacl) a
        where c.oid = 'zope_sendmail.mail'::regclass and a.grantee <> 0 and a.grantee <> c.relowner
    loop
        for made in select tablename from pg_tables where schemaname = 'zope_sendmail' loop
            execute format('grant %s on zope_sendmail.%I to %s', granted.what, made.tablename, granted.who);
        end loop;
    end loop;
end
$$
