//! `nitro-agent explain PATH…|MODEL…`: what the agent knows of a model, and what it would do on the next access, in sentences.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::Args;

use super::{
    ask::{self, Socket, print},
    by_hand, text,
};
use crate::{
    control::{
        client::Client,
        protocol::{Reply, Request},
    },
    engine::{
        explanation::{Explanation, Habit, Next, Order},
        happening::Skip,
        plan::device::Knowledge,
    },
    units::printable,
};

/// Flags of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent explain llama3:8b
  sudo nitro-agent explain /data/models/a.gguf --json")]
pub struct Options {
    /// Files, directories with all that is below them, or names of models.
    #[arg(value_name = "PATH|MODEL", required = true)]
    what: Vec<PathBuf>,
    /// One JSON object per model and line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Asks and prints.
///
/// # Errors
/// No agent, no permission, nothing watched there.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ask::run(async {
        let roots = by_hand::roots(&options.socket).await?;
        let paths = by_hand::paths(&options.what, &roots)?;
        let mut client = Client::connect(&options.socket.socket).await?;
        client.ask(&Request::Explain { paths }).await?;
        let Reply::Explained(explained) = client.next().await? else {
            bail!("the agent stopped before it answered");
        };
        for (number, one) in explained.iter().enumerate() {
            let text = if options.json {
                serde_json::to_string(one)?
            } else {
                let blank = if number > 0 { "\n" } else { "" };
                format!("{blank}{}", sentences(one).join("\n"))
            };
            if !print(&text)? {
                break;
            }
        }
        Ok(())
    })
}

/// All that there is to say, a sentence or two a line; the first is the title.
fn sentences(one: &Explanation) -> Vec<String> {
    let mut said = vec![format!(
        "{} ({}, {} in {}) at {}",
        printable(&one.model),
        one.layout.name(),
        one.bytes,
        text::files(one.files),
        printable(&one.path)
    )];
    let mut say = |sentence: String| said.push(format!("  {sentence}"));
    say(match one.uses {
        uses if uses < 0.05 => "It was not used lately, as far as the agent has seen.".to_owned(),
        uses => format!("It was used {uses:.1} times lately, where earlier uses count less."),
    });
    if one.loading {
        say("It is being loaded.".to_owned());
    }
    if one.mapped_by > 0 {
        let processes = if one.mapped_by == 1 {
            "process has"
        } else {
            "processes have"
        };
        say(format!("{} live {processes} it mapped.", one.mapped_by));
    }
    if one.pinned.0 > 0 {
        let why = if one.asked {
            "since somebody asked for it"
        } else {
            "for its use"
        };
        say(format!("{} of it are locked in memory, {why}.", one.pinned));
    }
    if one.held.0 > 0 {
        say(format!("{} of it were warmed and not used yet.", one.held));
    }
    if one.readers.is_empty() {
        say("No program has been seen to load it to its end.".to_owned());
    }
    for habit in &one.readers {
        say(reads(habit));
    }
    for next in &one.next {
        say(follows(next));
    }
    for coming in &one.expected {
        let when = if coming.begins_in > 0.5 {
            format!("will be brought in for it in {}", time(coming.begins_in))
        } else {
            "is being brought in for it, or was".to_owned()
        };
        say(format!(
            "{} is expected to load it ({:.0} %): it {when}.",
            program(&coming.program),
            100.0 * coming.confidence
        ));
    }
    said.extend(device(&one.device).map(|sentence| format!("  {sentence}")));
    said.push(format!("  {}", would(one)));
    said
}

fn program(name: &str) -> String {
    if name.is_empty() {
        "some program".to_owned()
    } else {
        printable(name)
    }
}

fn reads(habit: &Habit) -> String {
    let order = match habit.order {
        Order::InOrder => "from beginning to end",
        Order::Own => "in an order of its own, which is followed as long as it keeps to it",
        Order::Unstable => "in no order that would be the same twice",
    };
    let loads = if habit.loads < 1.5 {
        "one load has shown"
    } else {
        "its loads agree"
    };
    let mut said = format!("{} reads it {order}: {loads}.", program(&habit.program));
    if habit.never_read.0 > 0 {
        let files = match habit.files_never_read.as_slice() {
            [] => String::new(),
            files => format!(
                " ({})",
                files.iter().map(|file| printable(file)).collect::<Vec<_>>().join(", ")
            ),
        };
        said += &format!(
            " It never reads {} of it{files}, which would not be warmed.",
            habit.never_read
        );
    }
    if let Some(seconds) = habit.begins_within {
        said += &format!(" Once announced it begins within {}, nine times in ten.", time(seconds));
    }
    said
}

fn follows(next: &Next) -> String {
    let [_, usual, _] = next.due;
    let then = if next.brought_in {
        "that would be brought in before it is due"
    } else {
        "too unlikely to be brought in ahead"
    };
    format!(
        "After it {} loads {}, after {} as a rule: {:.0} % likely ({:.0} of {:.0} times), {then}.",
        program(&next.program),
        printable(&next.path),
        time(usual),
        100.0 * next.confidence,
        next.times,
        next.of
    )
}

fn device(known: &Knowledge) -> Option<String> {
    let rate = known.rate?;
    let alone = [
        (known.reads_alone, "that calls read"),
        (known.maps_alone, "of a mapping"),
    ];
    let alone: Vec<String> = alone
        .iter()
        .filter_map(|(rate, reader)| Some(format!("a reader {reader} gets {} by itself", (*rate)?)))
        .collect();
    let alone = if alone.is_empty() {
        "what a reader gets by itself was not seen".to_owned()
    } else {
        alone.join(", ")
    };
    let streams = match (known.one_stream.rate(), known.several_streams.rate()) {
        (Some(one), Some(several)) => format!("; one stream at a time gets {one}, several together {several}"),
        _ => String::new(),
    };
    Some(format!("Its device does {rate}; {alone}{streams}."))
}

fn would(one: &Explanation) -> String {
    let why: Vec<&str> = one.would.hindrances.iter().map(|skip| skip.reason()).collect();
    if !why.is_empty() && one.would.hindrances != [Skip::NoGain] {
        return format!("On the next access nothing would be warmed: {}.", why.join(", "));
    }
    let mut said = format!(
        "On the next access beyond its header, {} would be warmed ahead of the reader at once, and more as it reads on",
        one.would.window.min(one.bytes)
    );
    if one.would.hindrances == [Skip::NoGain] {
        said += ", unless it is a kind of reader that was faster without help there lately";
    }
    if one.would.holdout > 0.0 {
        said += &format!("; {:.0} in 100 loads are left without help", 100.0 * one.would.holdout);
    }
    said + "."
}

fn time(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = Duration::from_secs(seconds.min(1e9) as u64);
    // Two units are enough.
    let words = humantime::format_duration(whole).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::model::LayoutKind,
        engine::explanation::{Coming, Would},
        units::{ByteCount, Rate},
    };

    #[test]
    fn it_is_told_in_sentences() {
        let one = Explanation {
            model: "llama3:8b".into(),
            layout: LayoutKind::Ollama,
            path: "/models/blobs/sha256-1".into(),
            files: 2,
            bytes: ByteCount(5 << 30),
            uses: 3.2,
            pinned: ByteCount(5 << 30),
            asked: false,
            mapped_by: 1,
            loading: false,
            held: ByteCount(0),
            readers: vec![Habit {
                program: "ollama".into(),
                order: Order::InOrder,
                loads: 5.0,
                never_read: ByteCount(600 << 20),
                files_never_read: vec!["sha256-2".into()],
                begins_within: Some(2.14),
            }],
            next: vec![Next {
                program: "ollama".into(),
                path: "/models/blobs/sha256-3".into(),
                confidence: 0.8,
                due: [60.0, 185.0, 400.0],
                times: 8.0,
                of: 10.0,
                brought_in: true,
            }],
            expected: vec![Coming {
                program: String::new(),
                confidence: 0.9,
                begins_in: 0.0,
            }],
            device: Knowledge {
                rate: Some(Rate(1e9)),
                maps_alone: Some(Rate(1.3e8)),
                ..Knowledge::default()
            },
            would: Would {
                window: ByteCount(2 << 30),
                hindrances: vec![],
                holdout: 0.05,
            },
        };
        let said = sentences(&one);
        assert_eq!(
            said,
            [
                "llama3:8b (ollama, 5 GiB in 2 files) at /models/blobs/sha256-1",
                "  It was used 3.2 times lately, where earlier uses count less.",
                "  1 live process has it mapped.",
                "  5 GiB of it are locked in memory, for its use.",
                "  ollama reads it from beginning to end: its loads agree. It never reads 600 MiB of it (sha256-2), which would not be warmed. Once announced it begins within 2.1 s, nine times in ten.",
                "  After it ollama loads /models/blobs/sha256-3, after 3m 5s as a rule: 80 % likely (8 of 10 times), that would be brought in before it is due.",
                "  some program is expected to load it (90 %): it is being brought in for it, or was.",
                "  Its device does 954 MiB/s; a reader of a mapping gets 124 MiB/s by itself.",
                "  On the next access beyond its header, 2 GiB would be warmed ahead of the reader at once, and more as it reads on; 5 in 100 loads are left without help.",
            ]
        );
        let hindered = Explanation {
            would: Would {
                window: ByteCount(2 << 30),
                hindrances: vec![Skip::DryRun, Skip::Paused],
                holdout: 0.0,
            },
            ..one
        };
        let said = sentences(&hindered);
        assert_eq!(
            said.last().unwrap(),
            "  On the next access nothing would be warmed: dry run, paused."
        );
    }
}
