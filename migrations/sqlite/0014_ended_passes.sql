-- SPDX-License-Identifier: Apache-2.0
-- Sign-ins of tools that were ended before their time. Nodes read them again when the counter beside the epoch moves.
alter table epoch add column passes integer not null default 0;
create table ended_passes (
    id text not null constraint ended_passes_pk primary key,
    token_id text not null constraint ended_passes_token_fk references tokens (id) on delete cascade,
    made_at integer not null,
    expires_at integer not null,
    constraint ended_passes_expire_after_they_were_made check (expires_at > made_at)
) strict;
create index ended_passes_by_token on ended_passes (token_id);
-- Where one token has too many of them: all that were made until an instant.
create table ended_pass_marks (
    token_id text not null constraint ended_pass_marks_pk primary key
        constraint ended_pass_marks_token_fk references tokens (id) on delete cascade,
    made_until integer not null,
    expires_at integer not null
) strict;
