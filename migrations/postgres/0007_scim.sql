-- SPDX-License-Identifier: Apache-2.0
-- Which accounts a directory keeps, under which id of its own, and since when it has taken one of them out: what an
-- administrator disabled, no directory enables.
alter table users add column provisioned_at bigint;
alter table users add column external_id text;
alter table users add column left_at bigint;
create index users_by_external_id on users (external_id) where external_id is not null;

-- groups of a directory, who is in them, and the grants that this gives: each is taken back when it no longer is so
create table scim_groups (
    id text not null constraint scim_groups_pk primary key,
    name text not null constraint scim_groups_name_is_unique unique constraint scim_groups_name_is_short check (length(name) between 1 and 128),
    external_id text,
    created_at bigint not null
);
create table scim_members (
    group_id text not null constraint scim_members_group_fk references scim_groups (id) on delete cascade,
    user_id text not null constraint scim_members_user_fk references users (id) on delete cascade,
    constraint scim_members_pk primary key (group_id, user_id)
);
create table scim_grants (
    grant_id text not null constraint scim_grants_pk primary key constraint scim_grants_grant_fk references grants (id) on delete cascade,
    group_id text not null,
    user_id text not null,
    what text not null
);
