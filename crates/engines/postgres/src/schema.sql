-- Tables of a queue underneath Tradewind. The engine makes them where they are missing, if its user may. By hand:
--
--     psql -v partitions=1 -f schema.sql DATABASE                                  # a queue with the name orders
--     sed 's/orders/invoices/g' schema.sql | psql -v partitions=4 DATABASE         # one with another name
--
-- A program puts a task into the queue in a transaction of its own, by a plain insert. Nothing but these columns is for it,
-- and the right to insert them is all that it needs:
--
--     grant insert (key, retries, timeout, payload), select (id) on "orders" to shop;
--     insert into "orders" (payload) values ('ship 17') returning id;
--     insert into "orders" (key, payload) values ('invoice-17', 'bill 17') on conflict do nothing;
--
-- The engine's user needs all rights on all tables of this file, or is their owner.

-- Tasks. Rows are inserted and deleted, never updated, so vacuum finds room for new tasks where old ones were.
create table "orders" (
    id bigint generated always as identity primary key,
    -- Transaction that put the task in. Null where the engine did, which gives positions at once.
    xid xid8 default pg_current_xact_id(),
    partition integer not null,
    -- Name of the task: the same key a second time is the same task, and breaks a unique index.
    key bytea check (octet_length(key) between 1 and 512),
    -- Number of attempts after the first, and time that an attempt may take; those of the queue where they are null.
    retries bigint check (retries between 0 and 4294967295),
    timeout interval check (timeout >= interval '0'),
    -- Position of the task that this one is a retry of.
    retry_of bigint check (retry_of >= 0),
    payload bytea not null check (octet_length(payload) <= 16777216),
    created timestamptz not null default now(),
    -- Call of the engine that put it in, and its place there: made again, the call adds nothing.
    call uuid,
    place integer,
    check ((xid is null) = (call is not null)),
    check ((call is null) = (place is null))
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create unique index orders_key on "orders" (partition, key) where key is not null;
create unique index orders_call on "orders" (partition, call, place) where call is not null and key is null;
create index orders_xid on "orders" (partition, xid, id) where xid is not null;

-- Positions of tasks: the first id of a page has the first position. Written before any of its tasks is returned to
-- a reader, so they are the same for each reader. The last page says up to where tasks of programs have positions.
create table orders_pages (
    partition integer not null,
    first_position bigint not null,
    end_position bigint not null,
    ids bigint[] not null,
    id_min bigint not null,
    id_max bigint not null,
    seen_xid xid8 not null,
    seen_id bigint not null,
    primary key (partition, first_position)
);
create index orders_pages_id on orders_pages (partition, id_max);

-- Partitions: who gives positions locks the row. Tasks without a key below low are removed, and those with one below
-- keys_low.
create table orders_partitions (
    partition integer primary key,
    low bigint not null default 0,
    keys_low bigint not null default 0
);

-- Who may write records: who does locks the row. A lower epoch is refused.
create table orders_fences (
    partition integer primary key,
    epoch bigint not null default 0
);

-- Records of tasks, one for each. task_id is the id that the insert of the task returned, task is its position there.
-- The line is JSON: convert_from(line, 'UTF8')::json.
create table orders_records (
    partition integer not null,
    task bigint not null,
    task_id bigint,
    position bigint generated always as identity,
    status text not null,
    line bytea not null,
    stored_at timestamptz not null default now(),
    primary key (partition, task)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create unique index orders_records_position on orders_records (partition, position);
create index orders_records_task_id on orders_records (task_id);

-- Tasks that have records up to a position of records: '0-199,201'. So records below it may be removed.
create table orders_checkpoints (
    partition integer primary key,
    position bigint not null,
    tasks text not null
);

-- Who reads and writes a partition, by the clock of this server. No owner: it was released. Programs have leases on
-- numbers that are no partitions, too.
create table orders_leases (
    partition bigint primary key,
    epoch bigint not null,
    owner text,
    lasts interval not null,
    renewed timestamptz not null
);

-- Numbers of transactions mean something on one server only.
create table orders_settings (
    version integer not null,
    system bigint not null
);

insert into orders_settings select 1, system_identifier from pg_control_system();
insert into orders_partitions (partition) select generate_series(0, :partitions - 1);
insert into orders_fences (partition) select partition from orders_partitions;
insert into orders_pages select partition, -1, 0, '{}', 0, 0, '0', 0 from orders_partitions;

-- A task of a program is in the partition that its key's CRC-32 says, as for all other programs, or its id.
create function orders_set_partition() returns trigger language plpgsql as $$
declare
    -- CRC-32 of four bits each.
    crcs constant bigint[] = array[
        0, 498536548, 997073096, 651767980, 1994146192, 1802195444, 1303535960, 1342533948,
        3988292384, 4027552580, 3604390888, 3412177804, 2607071920, 2262029012, 2685067896, 3183342108
    ];
    crc bigint = 4294967295;
    partitions constant bigint = tg_argv[0];
begin
    if new.key is null or partitions = 1 then
        new.partition := new.id % partitions;
        return new;
    end if;
    for place in 0 .. octet_length(new.key) - 1 loop
        crc := crc # get_byte(new.key, place);
        crc := (crc >> 4) # crcs[1 + (crc & 15)];
        crc := (crc >> 4) # crcs[1 + (crc & 15)];
    end loop;
    new.partition := (crc # 4294967295) % partitions;
    return new;
end $$;
create trigger orders_set_partition before insert on "orders"
    for each row when (new.partition is null) execute function orders_set_partition(:partitions);

-- Readers that wait are woken. A notification costs the transactions that commit a lock: where many of them put tasks
-- in each second, drop trigger orders_notify on "orders". Readers look every 50 ms as well.
create function orders_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify(tg_table_name, '');
    return null;
end $$;
create trigger orders_notify after insert on "orders" for each statement execute function orders_notify();
create trigger orders_notify after insert on orders_records for each statement execute function orders_notify();

-- To be called once where these tables came to another server: by a dump, or by pg_upgrade. Nothing else may be at work.
create procedure orders_adopt() language plpgsql as $$
begin
    lock table "orders", orders_pages in exclusive mode;
    update "orders" t set xid = case
        when exists (
            select from orders_pages p
            where p.partition = t.partition and p.id_max >= t.id and t.id = any(p.ids)
        ) then xid8 '0'
        else pg_current_xact_id()
    end where xid is not null;
    update orders_pages p set seen_xid = pg_current_xact_id(), seen_id = 0
        where first_position = (select max(first_position) from orders_pages where partition = p.partition);
    update orders_settings set system = (select system_identifier from pg_control_system());
end $$;
