-- Which database this is: what was restored or copied elsewhere must not send the queue again before a person says so.

create table zope_sendmail.identity (
    one boolean primary key default true check (one),
    system bigint not null,
    database oid not null
);
insert into zope_sendmail.identity (system, database)
    select c.system_identifier, d.oid from pg_control_system() c, pg_database d where d.datname = current_database();
