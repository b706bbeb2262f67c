//! What goes over the socket: one JSON object per line, in both directions.
//!
//! A request names the version of the protocol it speaks: `{"version":1,"request":"loads","follow":true}`. Replies are `{"status":{…}}`,
//! `{"receipt":{…}}` for each receipt, `{"end":"complete"}` after the last, or `{"error":{"code":"…","message":"…"}}`. Any number of requests may
//! follow each other on one connection. Pure: bytes in, values out.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::wire_path::{self, WirePath};
use crate::{
    engine::{
        explanation::Explanation,
        order::{Command, Progress},
    },
    observe::{history::Kept, status::Status},
    units::ByteCount,
};

/// Version that this agent speaks.
pub const VERSION: u64 = 1;

/// Longest request, in bytes with its newline.
pub const MOST_REQUEST_BYTES: usize = 64 << 10;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The agent's state; answered by one [`Reply::Status`].
    Status,
    /// The last receipts; answered by [`Reply::Receipt`]s, oldest first, and [`Reply::End`].
    Loads {
        /// Go on with those to come, until the connection ends.
        #[serde(default)]
        follow: bool,
    },
    /// Bring nothing in, and hold no file open; answered by [`Reply::Done`] once that is ordered. For root and the agent's own user.
    Pause {
        /// For so long; until [`Request::Resume`] without.
        #[serde(default)]
        seconds: Option<u64>,
    },
    /// Go on; answered by [`Reply::Done`]. For root and the agent's own user.
    Resume,
    /// Watch nothing at or below a path any more; answered by [`Reply::Unwatched`]. For root and the agent's own user.
    Unwatch {
        /// Absolute and canonical.
        #[serde(with = "wire_path")]
        path: PathBuf,
    },
    /// Pin, unpin, warm or evict what is at paths; answered by [`Reply::Progress`]s and [`Reply::End`]. Ends with its connection. For root and the agent's own user.
    ByHand {
        /// What is to be done.
        command: Command,
        /// Absolute and canonical; files, or directories with all that is below them.
        paths: Vec<WirePath>,
    },
    /// What is known of the models at paths, and what would be done; answered by [`Reply::Explained`]. For root and the agent's own user.
    Explain {
        /// Absolute and canonical; files, or directories with all that is below them.
        paths: Vec<WirePath>,
    },
    /// Forget what was learned of the models at paths, or everything; answered by [`Reply::Done`]. For root and the agent's own user.
    Forget {
        /// Absolute; they need not exist any more. Without any, everything.
        #[serde(default)]
        paths: Option<Vec<WirePath>>,
    },
    /// Record what happens; answered by [`Reply::Recording`], after which no more lines come but frames of a trace, until the client closes its writing end and has had the
    /// rest. For root and the agent's own user.
    Record {
        /// Records per second at most.
        rate: u64,
    },
}

#[derive(Serialize)]
struct Envelope<'a> {
    version: u64,
    #[serde(flatten)]
    request: &'a Request,
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The state.
    Status(Box<Status>),
    /// A receipt.
    Receipt(Arc<Kept>),
    /// It was done.
    Done,
    /// It is no longer watched.
    Unwatched(Unwatched),
    /// How far an order by hand is.
    Progress(Progress),
    /// What is known, model by model.
    Explained(Vec<Explanation>),
    /// Frames of a trace follow instead of lines.
    Recording,
    /// Nothing more comes.
    End(End),
    /// The request was not carried out, or no further.
    Error(Refusal),
}

/// What is no longer watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatched {
    /// Watch roots.
    pub roots: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// That was all.
    Complete,
    /// The agent stops.
    Stopping,
}

/// What kind of refusal: for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Not a JSON object with a version and a request.
    Malformed,
    /// Longer than [`MOST_REQUEST_BYTES`].
    TooLong,
    /// Of another version than [`VERSION`].
    Version,
    /// Not a request of this version.
    Unknown,
    /// Not for this caller.
    Forbidden,
    /// Nothing there is watched.
    NotWatched,
    /// Too many connections, paths, or orders.
    TooMany,
    /// The agent was not started for it.
    Off,
    /// The request took too long to come.
    Timeout,
    /// The agent is starting, or too busy to answer.
    Busy,
    /// A follower did not keep up.
    TooSlow,
}

/// A refusal: for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its kind.
    pub code: Code,
    /// What is wrong and what to do, in one line.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Reads a request line, with or without its newline.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with it.
pub fn decode(line: &[u8]) -> Result<Request, Refusal> {
    let malformed = |why: String| Refusal::new(Code::Malformed, why);
    let value: serde_json::Value = serde_json::from_slice(line).map_err(|error| {
        malformed(format!(
            "not JSON ({error}): send for example {{\"version\":{VERSION},\"request\":\"status\"}}"
        ))
    })?;
    if !value.is_object() {
        return Err(malformed("not a JSON object".into()));
    }
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    match version {
        Some(VERSION) => {}
        Some(other) => {
            return Err(Refusal::new(
                Code::Version,
                format!(
                    "the request speaks version {other}, this agent {VERSION}: use the nitro-agent that belongs to it"
                ),
            ));
        }
        None => {
            return Err(malformed(format!(
                "\"version\" is missing or no number: send {VERSION}"
            )));
        }
    }
    if !value.get("request").is_some_and(serde_json::Value::is_string) {
        return Err(malformed(
            "\"request\" is missing or no string: send \"status\" or \"loads\"".into(),
        ));
    }
    serde_json::from_value(value).map_err(|error| Refusal::new(Code::Unknown, error.to_string()))
}

/// A request as a line.
///
/// # Errors
/// None for any request of this version; the serializer's type has one.
pub fn encode_request(request: &Request) -> serde_json::Result<Vec<u8>> {
    line(&Envelope {
        version: VERSION,
        request,
    })
}

/// A reply as a line.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn encode_reply(reply: &Reply) -> serde_json::Result<Vec<u8>> {
    line(reply)
}

fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use proptest::prelude::*;

    use super::*;

    fn code(line: &str) -> Code {
        decode(line.as_bytes()).unwrap_err().code
    }

    #[test]
    fn requests_come_back_as_they_went() {
        for request in [
            Request::Status,
            Request::Loads { follow: false },
            Request::Loads { follow: true },
            Request::Pause { seconds: None },
            Request::Pause {
                seconds: Some(u64::MAX),
            },
            Request::Resume,
            Request::Record { rate: 300_000 },
            Request::ByHand {
                command: Command::Pin,
                paths: vec![
                    WirePath("/models/a".into()),
                    WirePath(OsStr::from_bytes(b"/models/\xff").into()),
                ],
            },
            Request::Explain {
                paths: vec![WirePath("/models/a".into())],
            },
            Request::Forget { paths: None },
            Request::Forget {
                paths: Some(vec![WirePath("/models/a".into())]),
            },
            Request::Unwatch {
                path: "/models/ä b".into(),
            },
            Request::Unwatch {
                path: OsStr::from_bytes(b"/models/\xff\n").into(),
            },
        ] {
            assert_eq!(decode(&encode_request(&request).unwrap()), Ok(request));
        }
    }

    #[test]
    fn follow_may_be_left_out_and_unknown_fields_are_let_pass() {
        let line = br#"{"version":1,"request":"loads","later":[1,2]}"#;
        assert_eq!(decode(line), Ok(Request::Loads { follow: false }));
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(code(""), Code::Malformed);
        assert_eq!(code("status"), Code::Malformed);
        assert_eq!(code("[1]"), Code::Malformed);
        assert_eq!(code(r#"{"request":"status"}"#), Code::Malformed);
        assert_eq!(code(r#"{"version":"1","request":"status"}"#), Code::Malformed);
        assert_eq!(code(r#"{"version":1}"#), Code::Malformed);
        assert_eq!(code(r#"{"version":2,"request":"status"}"#), Code::Version);
        assert_eq!(code(r#"{"version":1,"request":"dance"}"#), Code::Unknown);
        assert_eq!(code(r#"{"version":1,"request":"loads","follow":1}"#), Code::Unknown);
        assert_eq!(code(r#"{"version":1,"request":"pause","seconds":-1}"#), Code::Unknown);
        assert_eq!(code(r#"{"version":1,"request":"unwatch"}"#), Code::Unknown);
        assert_eq!(
            code(r#"{"version":1,"request":"unwatch","path":"models"}"#),
            Code::Unknown
        );
        assert_eq!(
            code(r#"{"version":1,"request":"unwatch","path":"/a/../b"}"#),
            Code::Unknown
        );
        assert_eq!(
            code(r#"{"version":1,"request":"unwatch","path":[47,0]}"#),
            Code::Unknown
        );
        assert_eq!(
            code(r#"{"version":1,"request":"by-hand","command":"pin","paths":["a"]}"#),
            Code::Unknown
        );
        assert_eq!(code(&"[".repeat(60_000)), Code::Malformed);
    }

    /// JSON that is nearly a request: the right keys with wrong values, doubled, nested, cut.
    fn near_request() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof![
            Just("1".to_owned()),
            Just("\"status\"".to_owned()),
            Just("\"loads\"".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("1e999".to_owned()),
            Just("{\"version\":1}".to_owned()),
            "\"[^\"\\\\]{0,8}\"",
        ];
        let key = prop_oneof![Just("version"), Just("request"), Just("follow"), Just("\\u0000")];
        let field = (key, value).prop_map(|(key, value)| format!("\"{key}\":{value}"));
        (proptest::collection::vec(field, 0..5), 0usize..8).prop_map(|(fields, cut)| {
            let mut line = format!("{{{}}}", fields.join(",")).into_bytes();
            line.truncate(line.len() - cut.min(line.len()) / 2);
            line
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(line in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode(&line);
        }

        #[test]
        fn what_is_nearly_a_request_is_a_request_or_a_refusal_in_one_line(line in near_request()) {
            if let Err(refusal) = decode(&line) {
                prop_assert!(!refusal.message.contains('\n'));
                let reply = encode_reply(&Reply::Error(refusal)).unwrap();
                prop_assert_eq!(reply.iter().filter(|byte| **byte == b'\n').count(), 1);
            }
        }
    }
}
