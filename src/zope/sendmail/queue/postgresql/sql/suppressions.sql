-- name: suppressed
select address, reason, extract(epoch from since)::float8, extract(epoch from until)::float8, version, removed
from zope_sendmail.suppression where queue = %(queue)s and version > %(known)s

-- name: suppress
with turn as (
    update zope_sendmail.queue set suppressions = suppressions + 1 where id = %(queue)s returning suppressions
)
insert into zope_sendmail.suppression (queue, address, reason, since, until, version)
    select %(queue)s, e.address, e.reason, to_timestamp(e.since), to_timestamp(e.until), turn.suppressions
    from turn, unnest(%(addresses)s::text[], %(reasons)s::text[], %(since)s::float8[], %(until)s::float8[])
        as e (address, reason, since, until)
on conflict (queue, address) do update set reason = excluded.reason, since = excluded.since, until = excluded.until,
    version = excluded.version, removed = false

-- name: unsuppress
-- The row stays, so that processors learn of it.
with turn as (
    update zope_sendmail.queue set suppressions = suppressions + 1 where id = %(queue)s returning suppressions
)
update zope_sendmail.suppression s set removed = true, version = turn.suppressions, reason = ''
from turn where s.queue = %(queue)s and s.address = any(%(addresses)s::text[]) and not s.removed
returning s.address
