//! `nitro-agent pause` and `nitro-agent resume`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::ask::{self, Socket, print};
use crate::control::{
    client::Client,
    protocol::{Reply, Request},
};

/// Flags of `pause`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent pause
  sudo nitro-agent pause 10m
  sudo nitro-agent pause 1h30m && make -j && sudo nitro-agent resume")]
pub struct PauseOptions {
    /// For how long: 30s, 10m, 1h30m; without it, until `resume`.
    #[arg(value_name = "DURATION")]
    duration: Option<humantime::Duration>,
    #[command(flatten)]
    socket: Socket,
}

/// Flags of `resume`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent resume")]
pub struct ResumeOptions {
    #[command(flatten)]
    socket: Socket,
}

/// Pauses the agent.
///
/// # Errors
/// No agent, no permission.
pub fn pause(options: &PauseOptions) -> anyhow::Result<()> {
    let duration = options.duration.map(Duration::from);
    // A fraction of a second still is a pause.
    let seconds = duration.map(|duration| duration.as_secs() + u64::from(duration.subsec_nanos() > 0));
    let said = match options.duration {
        Some(duration) => format!("paused for {duration}"),
        None => "paused until `nitro-agent resume`".to_owned(),
    };
    order(&options.socket, Request::Pause { seconds }, &said)
}

/// Lets it go on.
///
/// # Errors
/// No agent, no permission.
pub fn resume(options: &ResumeOptions) -> anyhow::Result<()> {
    order(&options.socket, Request::Resume, "the agent goes on")
}

fn order(socket: &Socket, request: Request, said: &str) -> anyhow::Result<()> {
    ask::run(async {
        let mut client = Client::connect(&socket.socket).await?;
        client.ask(&request).await?;
        let Reply::Done = client.next().await? else {
            bail!("the agent stopped before it answered");
        };
        print(said)?;
        Ok(())
    })
}
