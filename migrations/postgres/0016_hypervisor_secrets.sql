-- SPDX-License-Identifier: Apache-2.0
-- Secrets of hypervisors that were rotated. What is here is used in place of what the configuration names. `next` is one
-- that a rotation is about to put in place: it is kept before the hypervisor hears of it, so that no crash loses it.
create table hypervisor_secrets (
    hypervisor text not null,
    credential text not null,
    sealed bytea,
    next bytea,
    version bigint not null constraint hypervisor_secrets_version_counts check (version >= 0),
    made_at bigint,
    made_by text constraint hypervisor_secrets_made_by_is_short check (length(made_by) <= 128),
    taken_version bigint not null,
    used_at bigint,
    constraint hypervisor_secrets_pk primary key (hypervisor, credential),
    constraint hypervisor_secrets_are_made_once check ((sealed is null) = (made_at is null))
);
