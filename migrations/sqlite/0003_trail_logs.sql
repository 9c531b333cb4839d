-- SPDX-License-Identifier: Apache-2.0
-- Which logs were ever written, and where: so that one that is gone is missed. Several installations may share a
-- database; place tells whose log it is. What was acknowledged as lost: how many events were known of it then, and how
-- many of them were left on the disk.
create table trail_logs (
    node text not null constraint trail_logs_pk primary key,
    place text not null,
    acknowledged_at integer,
    known integer,
    kept integer,
    constraint trail_logs_acknowledged_says_what check (
        (acknowledged_at is null) = (known is null) and (acknowledged_at is null) = (kept is null)
    )
) strict;
