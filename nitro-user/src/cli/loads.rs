//! `nitro-agent loads`: the receipts of the last loads, and of those to come.

use anyhow::bail;
use clap::Args;

use super::{
    ask::{self, Socket, print},
    receipts::{Row, Widths, header},
    text::Look,
};
use crate::control::{
    client::Client,
    protocol::{End, Reply, Request},
};

/// Flags of `loads`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent loads
  sudo nitro-agent loads --follow
  sudo nitro-agent loads --json | jq 'select(.wasted > 0)'

Columns, in percent of the bytes that a load demanded:
  BEF   in the page cache before
  RA    brought in by the kernel's readahead
  OK    warmed in time
  LATE  warmed too late
  MISS  brought in while the reader waited")]
pub struct Options {
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Go on with new ones until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Asks and prints.
///
/// # Errors
/// No agent, no permission, no keeping up.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ask::run(async {
        let mut client = Client::connect(&options.socket.socket).await?;
        let follow = options.follow;
        client.ask(&Request::Loads { follow }).await?;
        let look = Look::of(&std::io::stdout());
        if options.json || follow {
            return stream(&mut client, options.json, look).await;
        }
        let mut all = Vec::new();
        loop {
            match client.next().await? {
                Reply::Receipt(kept) => all.push(kept),
                Reply::End(End::Complete) => break,
                _ => bail!("the agent stopped while it was answering"),
            }
        }
        if all.is_empty() {
            print("no load has ended yet")?;
            return Ok(());
        }
        let rows: Vec<Row> = all.iter().map(|kept| Row::of(kept)).collect();
        let widths = Widths::fitting(&rows, look);
        if print(&header(widths))? {
            for row in &rows {
                if !print(&row.line(widths))? {
                    break;
                }
            }
        }
        Ok(())
    })
}

/// Prints receipts as they come.
async fn stream(client: &mut Client, json: bool, look: Look) -> anyhow::Result<()> {
    let widths = Widths::open(look);
    if !json && !print(&header(widths))? {
        return Ok(());
    }
    loop {
        let line = match client.next_ever().await? {
            Reply::Receipt(kept) if json => serde_json::to_string(&*kept)?,
            Reply::Receipt(kept) => Row::of(&kept).line(widths),
            // The agent's end is the end of what can be followed.
            Reply::End(_) => return Ok(()),
            Reply::Status(_)
            | Reply::Done
            | Reply::Unwatched(_)
            | Reply::Progress(_)
            | Reply::Explained(_)
            | Reply::Recording
            | Reply::Error(_) => {
                bail!("the agent answered something else than was asked")
            }
        };
        if !print(&line)? {
            return Ok(());
        }
    }
}
