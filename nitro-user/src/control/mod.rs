//! The local socket: who may ask the running agent what, and how.
//!
//! `protocol` is what goes over the wire, `socket` makes and removes the file, `caller` says who sees what, `server` and `connection` answer, `client`
//! asks. In: requests, and values that the daemon's task hands over for each [`Query`]. Out: replies. It decides nothing about loads, holds no
//! state of the agent, and no client can make it wait or grow: connections, request lines, times and followers' queues are bounded.
//!
//! A new request is a variant of [`protocol::Request`], one of [`Query`], and an arm in `connection`.

mod caller;
pub mod client;
mod connection;
mod lines;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod wire_path;

pub use server::{Query, Server};
