-- SPDX-License-Identifier: Apache-2.0
-- Who runs, and which secret of a hypervisor each of them uses: an old secret is taken away at the hypervisor when no
-- running gateway uses it. A gateway writes here every few seconds; one whose `seen_at` stands still is gone.
create table nodes (
    id text not null constraint nodes_pk primary key,
    place text not null constraint nodes_place_is_short check (length(place) <= 512),
    began_at bigint not null,
    seen_at bigint not null
);

create table taken_secrets (
    node text not null,
    hypervisor text not null,
    credential text not null,
    version bigint not null,
    constraint taken_secrets_pk primary key (node, hypervisor, credential)
);

-- A rotation holds a secret for a while, under an id that only it knows. `former` is the secret before, sealed, until it
-- is taken away at the hypervisor. `taken_version` is written for programs that know no nodes, and read by none of this one.
alter table hypervisor_secrets
    add column former bytea,
    add column claim text,
    add column claimed_by text
        constraint hypervisor_secrets_claimed_by_is_short check (length(claimed_by) <= 256),
    add column claimed_at bigint,
    add column claim_ends_at bigint,
    add constraint hypervisor_secrets_claims_are_whole check (
        (claim is null) = (claim_ends_at is null)
        and (claim is null) = (claimed_at is null)
        and (claim is null) = (claimed_by is null)
    );
