-- SPDX-License-Identifier: Apache-2.0
-- Groups hold grants too: those of a directory (until now scim_groups) and those made here. A grant may forbid, may
-- cover machines by a path with wildcards, and may have come from an access request. `version` is the value that the
-- epoch had when the row was last changed: a node reads again only what is newer than what it knows.
alter table scim_groups rename to groups;
alter table groups add column source text not null default 'directory'
    constraint groups_source_is_known check (source in ('directory', 'local'));
alter table groups add column words text not null default ''
    constraint groups_words_are_short check (length(words) <= 512);
alter table groups add column version bigint not null default 0;
alter table scim_members rename to group_members;
alter table group_members add column added_by text;
create index group_members_by_user on group_members (user_id);

alter table grants alter column user_id drop not null;
alter table grants add column group_id text constraint grants_group_fk references groups (id) on delete cascade;
alter table grants add column effect text not null default 'allow'
    constraint grants_effect_is_known check (effect in ('allow', 'deny'));
alter table grants add column request_id text;
alter table grants add column version bigint not null default 0;
alter table grants drop constraint grants_selector_is_known;
alter table grants add constraint grants_selector_is_known
    check (selector_kind in ('everything', 'hypervisor', 'pool', 'tag', 'machine', 'pattern'));
alter table grants add constraint grants_have_one_holder check ((user_id is null) <> (group_id is null));
create index grants_by_group on grants (group_id);
create index grants_by_version on grants (version);
