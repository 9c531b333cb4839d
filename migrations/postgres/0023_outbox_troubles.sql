-- SPDX-License-Identifier: Apache-2.0
-- What was last not delivered, on each way: for whoever asks why messages wait. It is no message, and outlives the one that
-- it speaks of.
create table outbox_troubles (
    way text not null constraint outbox_troubles_pk primary key
        constraint outbox_troubles_way_is_known check (way in ('mail', 'webhook')),
    failed_at bigint not null,
    whom text not null,
    why text not null constraint outbox_troubles_are_short check (length(why) <= 1000)
);
