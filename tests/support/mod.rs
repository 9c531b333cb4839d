// SPDX-License-Identifier: Apache-2.0
//! What the journeys stand on: a whole gateway on loopback, people with browsers, and real peers.

pub(crate) mod gateway;
pub(crate) mod lab;
pub(crate) mod page;
pub(crate) mod peers;
pub(crate) mod person;
pub(crate) mod screen;

pub(crate) use gateway::TestGateway;
pub(crate) use person::Person;
