-- SPDX-License-Identifier: Apache-2.0
-- Which accounts a directory keeps, under which id of its own, and since when it has taken one of them out: what an
-- administrator disabled, no directory enables.
alter table users add column provisioned_at bigint;
alter table users add column external_id text;
alter table users add column left_at bigint;
create index users_by_external_id on users (external_id) where external_id is not null;
