-- SPDX-License-Identifier: Apache-2.0
-- The event that closed an operation is found by the one that opened it.
create index trail_events_by_closing on trail_events (node, closes) where closes is not null;
