//! Measuring: what a bench needs around the agent, and what it makes of the figures.
//!
//! - [`disk::TestDisk`]: a file system that is really cold after its caches were dropped;
//! - [`store::Store`]: a file system whose server takes its time, or stalls;
//! - [`limit::IoLimit`]: one group in which reader and agent share a device's rate, so that the agent cannot cheat;
//! - [`tree`]: models on disk as loaders find them, the same for the same seed;
//! - [`readers`]: loaders, each in a process of its own;
//! - [`agent::AgentProcess`]: the agent, started and ready, stopped and timed;
//! - [`stats`]: what a handful of noisy pairs allows one to say, and [`verdict`] in one sentence.
//!
//! `nitro-agent bench` is [`run`]: [`plan`] says what is measured, [`room`] whether it can be, [`site`] makes a device with models on it, [`compare`] measures, [`report`], [`plot`]
//! and [`page`] show it. `nitro-agent prove` is [`prove`].
//!
//! It knows the agent as a program and never from within. Whatever it makes on the machine carries [`scratch::PREFIX`] and its maker's identity, is removed on
//! drop and on SIGINT, SIGTERM and SIGHUP, and, after a kill, by the next run: see [`sweep`].

pub mod agent;
pub mod compare;
pub mod disk;
pub mod limit;
pub mod page;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod prove;
pub mod readers;
pub mod report;
pub mod room;
pub mod run;
pub mod scratch;
pub mod session;
pub mod site;
pub mod stats;
pub mod store;
pub mod sweep;
pub mod tools;
pub mod tree;
pub mod verdict;
