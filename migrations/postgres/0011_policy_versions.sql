-- SPDX-License-Identifier: Apache-2.0
-- Every set of policy files that was taken over, whole: the newest number is the one in effect. `files` is a JSON object
-- of names and texts, and `hash` the SHA-256 of it in hexadecimal.
create table policy_versions (
    number bigint not null constraint policy_versions_pk primary key
        constraint policy_versions_count_from_one check (number > 0),
    files text not null,
    hash text not null constraint policy_versions_hash_is_sha256 check (length(hash) = 64),
    applied_at bigint not null,
    applied_by text not null,
    why text not null constraint policy_versions_why_is_short check (length(why) <= 512)
);
