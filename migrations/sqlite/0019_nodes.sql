-- SPDX-License-Identifier: Apache-2.0
-- Who runs, and which secret of a hypervisor each of them uses: an old secret is taken away at the hypervisor when no
-- running gateway uses it. A gateway writes here every few seconds; one whose `seen_at` stands still is gone.
create table nodes (
    id text not null constraint nodes_pk primary key,
    place text not null constraint nodes_place_is_short check (length(place) <= 512),
    began_at integer not null,
    seen_at integer not null
) strict;

create table taken_secrets (
    node text not null,
    hypervisor text not null,
    credential text not null,
    version integer not null,
    constraint taken_secrets_pk primary key (node, hypervisor, credential)
) strict;

-- A rotation holds a secret for a while, under an id that only it knows. `former` is the secret before, sealed, until it
-- is taken away at the hypervisor. `taken_version` is written for programs that know no nodes, and read by none of this one.
alter table hypervisor_secrets add column former blob;
alter table hypervisor_secrets add column claim text;
alter table hypervisor_secrets add column claimed_by text
    constraint hypervisor_secrets_claimed_by_is_short check (length(claimed_by) <= 256);
alter table hypervisor_secrets add column claimed_at integer;
alter table hypervisor_secrets add column claim_ends_at integer
    constraint hypervisor_secrets_claims_are_whole check (
        (claim is null) = (claim_ends_at is null)
        and (claim is null) = (claimed_at is null)
        and (claim is null) = (claimed_by is null)
    );
