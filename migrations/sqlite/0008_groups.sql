-- SPDX-License-Identifier: Apache-2.0
-- Groups hold grants too: those of a directory (until now scim_groups) and those made here. A grant may forbid, may
-- cover machines by a path with wildcards, and may have come from an access request. `version` is the value that the
-- epoch had when the row was last changed: a node reads again only what is newer than what it knows.
alter table scim_groups rename to groups;
alter table groups add column source text not null default 'directory'
    constraint groups_source_is_known check (source in ('directory', 'local'));
alter table groups add column words text not null default ''
    constraint groups_words_are_short check (length(words) <= 512);
alter table groups add column version integer not null default 0;
alter table scim_members rename to group_members;
alter table group_members add column added_by text;
create index group_members_by_user on group_members (user_id);

create table grants_next (
    id text not null constraint grants_pk primary key,
    user_id text constraint grants_user_fk references users (id) on delete cascade,
    group_id text constraint grants_group_fk references groups (id) on delete cascade,
    role text not null,
    selector_kind text not null constraint grants_selector_is_known
        check (selector_kind in ('everything', 'hypervisor', 'pool', 'tag', 'machine', 'pattern')),
    selector_value text not null,
    effect text not null default 'allow' constraint grants_effect_is_known check (effect in ('allow', 'deny')),
    from_at integer not null,
    until_at integer,
    conditions text not null,
    source text not null constraint grants_source_is_known
        check (source in ('administrator', 'setup', 'policy-file', 'access-request', 'identity-provider')),
    created_by text,
    created_at integer not null,
    revoked_at integer,
    revoked_by text,
    request_id text,
    version integer not null default 0,
    constraint grants_have_one_holder check ((user_id is null) <> (group_id is null)),
    constraint grants_end_after_they_begin check (until_at is null or until_at > from_at)
) strict;
insert into grants_next (id, user_id, role, selector_kind, selector_value, from_at, until_at, conditions, source,
    created_by, created_at, revoked_at, revoked_by)
    select id, user_id, role, selector_kind, selector_value, from_at, until_at, conditions, source,
    created_by, created_at, revoked_at, revoked_by from grants;
create table scim_grants_next (
    grant_id text not null constraint scim_grants_pk primary key constraint scim_grants_grant_fk references grants_next (id) on delete cascade,
    group_id text not null,
    user_id text not null,
    what text not null
) strict;
insert into scim_grants_next select grant_id, group_id, user_id, what from scim_grants;
drop table scim_grants;
drop table grants;
alter table grants_next rename to grants;
alter table scim_grants_next rename to scim_grants;
create index grants_by_user on grants (user_id);
create index grants_by_group on grants (group_id);
create index grants_by_version on grants (version);
