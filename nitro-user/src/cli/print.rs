//! What the agent says while it runs: lines for people, or one JSON object per line.
//!
//! In: what the daemon's task tells its audience. Out: lines for an [`Outlet`], so that a reader who is slow or gone holds nobody up. The JSON objects all
//! have `event` (`ready`, `watching`, `happening`, `receipt`, `stopping`, `dropped`) and, but for the last, `time` in seconds since 1970.

use serde_json::json;

use super::{
    directories,
    outlet::Outlet,
    text::{self, Look},
};
use crate::{
    daemon::{Audience, Started},
    engine::happening::{Happening, What},
    observe::{history::Kept, status::DirectoryStatus},
    sys::clock,
    units::{ByteCount, printable},
};

/// Columns of the label that the start-up lines begin with.
const LABEL: usize = 10;

/// Columns of time and kind before a happening's model; notes that find no room beside it go below it.
const BEFORE_MODEL: usize = 14;

/// Columns that are worth folding a note in beside the rest.
const LEAST_NOTE: usize = 24;

/// A load of so many bytes is worth a line in a service's log.
const LARGE: ByteCount = ByteCount(1 << 30);

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    Nothing,
    /// The start, the end, and large loads that have ended: a service's log is kept, and read later.
    Service,
    /// Everything that happens.
    All,
}

impl Detail {
    /// Whether a happening is told.
    fn tells(self, happening: &Happening) -> bool {
        match self {
            Self::Nothing => false,
            Self::Service => happening.what == What::Done && happening.bytes >= LARGE,
            Self::All => true,
        }
    }
}

/// Prints to standard output.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    detail: Detail,
    out: Option<Outlet>,
}

impl Printer {
    /// A printer. As JSON everything is told, or nothing: programs choose for themselves.
    pub fn new(json: bool, detail: Detail) -> Self {
        let lost: fn(u64) -> String = if json {
            |lines| json!({ "event": "dropped", "lines": lines }).to_string()
        } else {
            |lines| format!("{lines} lines were not printed, since nobody took them")
        };
        let out = (detail != Detail::Nothing).then(|| Outlet::new(std::io::stdout(), lost));
        Self { json, detail, out }
    }

    fn line(&mut self, line: &str) {
        if let Some(out) = &mut self.out {
            out.line(line);
        }
    }
}

impl Audience for Printer {
    fn started(&mut self, started: &Started) {
        if self.json {
            let line = json!({ "event": "ready", "time": clock::unix_now(), "started": started });
            return self.line(&line.to_string());
        }
        for line in start_lines(started, Look::of(&std::io::stdout())) {
            self.line(&line);
        }
    }

    fn happening(&mut self, happening: &Happening) {
        if self.json {
            let line = json!({ "event": "happening", "time": clock::unix_now(), "happening": happening });
            return self.line(&line.to_string());
        }
        if !self.detail.tells(happening) {
            return;
        }
        let time = clock::local_time_of_day(clock::unix_now() as u64);
        let line = happening_line(happening, &time, Look::of(&std::io::stdout()));
        self.line(&line);
    }

    fn watching(&mut self, directory: &DirectoryStatus) {
        if self.json {
            let line = json!({ "event": "watching", "time": clock::unix_now(), "watching": directory });
            return self.line(&line.to_string());
        }
        for line in directories::rows(std::slice::from_ref(directory)) {
            self.line(&labelled("watching", &line, None));
        }
    }

    fn finished(&mut self, kept: &Kept) {
        // For people the happening that comes with it says it all.
        if self.json {
            self.line(&json!({ "event": "receipt", "time": kept.time, "receipt": kept.receipt }).to_string());
        }
    }

    fn stopping(&mut self, signal: &str) {
        if self.json {
            let line = json!({ "event": "stopping", "time": clock::unix_now(), "signal": signal });
            return self.line(&line.to_string());
        }
        self.line(&labelled("stopping", &format!("on {signal}"), None));
    }
}

/// `watching  /models`, folded below itself.
pub fn labelled(label: &str, what: &str, columns: Option<usize>) -> String {
    text::fold(&text::pad(label, LABEL), &printable(what), columns)
}

/// The lines before the first happening; the last one says `ready`.
fn start_lines(started: &Started, look: Look) -> Vec<String> {
    let mut lines = vec![format!("nitro-agent {} on Linux {}", started.version, started.kernel)];
    let mut say = |label: &str, what: &str| lines.push(labelled(label, what, look.columns));
    let modes = &started.attachment;
    say("events", &format!("{}: {}", modes.mode, modes.why));
    for program in &modes.programs {
        if let Some(reason) = &program.refused {
            say("", &format!("without {}: {reason}", program.program));
        }
    }
    let known = &started.found;
    for (label, line) in directories::lines(&known.roots, &known.directories, started.auto.as_ref()) {
        say(label, &line);
    }
    say(
        "",
        &found(&started.found.models, started.found.files, started.found.bytes),
    );
    for (folder, count) in &started.found.outside {
        let links = if *count == 1 { "link leads" } else { "links lead" };
        say("", &format!("{count} {links} outside: add --watch {folder}"));
    }
    say("ceiling", &format!("{} warmed and not used yet", started.ceiling));
    if started.dry_run {
        say("dry run", "nothing is warmed");
    }
    say("ready", &format!("in {:.2} s", started.seconds));
    lines
}

/// `11 models (9 ollama, 2 gguf), 80 GiB in 96 files`.
pub fn found(models: &std::collections::BTreeMap<String, u64>, files: u64, bytes: ByteCount) -> String {
    let all: u64 = models.values().sum();
    let models = match all {
        0 => "no model recognised".to_owned(),
        1 => format!("1 model ({})", text::layouts(models)),
        _ => format!("{all} models ({})", text::layouts(models)),
    };
    format!("{models}, {bytes} in {}", text::files(files))
}

/// `14:03:59 WARM llama3:8b   4.34 GiB   3 %  ollama[4711]   window of 128 MiB`.
fn happening_line(happening: &Happening, time: &str, look: Look) -> String {
    let (model_columns, program_columns) = match look.columns {
        Some(..100) => (18, 16),
        Some(..120) => (24, 18),
        Some(_) | None => (32, 20),
    };
    // Where nothing limits the line nothing is shortened: it may be searched for.
    let most = |columns| if look.columns.is_some() { columns } else { usize::MAX };
    let model = text::shorten(&printable(&happening.model), most(model_columns));
    let program = text::program(happening.program.as_deref(), happening.process, most(program_columns));
    let lead = format!(
        " {} {:>9} {:>3} %  {}  ",
        text::pad(&model, model_columns),
        happening.bytes.to_string(),
        happening.ceiling_percent,
        text::pad(&program, program_columns),
    );
    let color = match happening.what {
        What::Load => "1;36",
        What::Warm => "1;33",
        What::Skip => "1;35",
        What::Done => "1;32",
    };
    let what = look.paint(happening.what.name(), color);
    let note = printable(&happening.note);
    let taken = BEFORE_MODEL - 1 + text::width(&lead);
    let line = format!("{time} {what}{lead}");
    let line = match look.columns {
        Some(columns) if taken + text::width(&note) > columns && columns < taken + LEAST_NOTE => {
            let below = text::fold(&" ".repeat(BEFORE_MODEL), &note, Some(columns));
            format!("{}\n{below}", line.trim_end())
        }
        columns => line + text::fold(&" ".repeat(taken), &note, columns).trim_start(),
    };
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(note: &str) -> Happening {
        Happening {
            what: What::Done,
            model: "organisation/a-model-with-a-long-name-Q4_K_M.gguf".into(),
            program: Some("llama-server".into()),
            process: 47_110,
            bytes: ByteCount(2_140_000_000),
            ceiling_percent: 7,
            note: note.into(),
        }
    }

    fn look(columns: usize) -> Look {
        Look {
            columns: Some(columns),
            color: false,
        }
    }

    #[test]
    fn a_service_tells_of_large_loads_that_have_ended() {
        let large = happening("");
        let small = Happening {
            bytes: ByteCount((1 << 30) - 1),
            ..happening("")
        };
        let begun = Happening {
            what: What::Warm,
            ..happening("")
        };
        let told = |detail: Detail| [&large, &small, &begun].map(|happening| detail.tells(happening));
        assert_eq!(told(Detail::Service), [true, false, false]);
        assert_eq!(told(Detail::All), [true; 3]);
        assert_eq!(told(Detail::Nothing), [false; 3]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let notes = [
            "reading",
            "2.31 s, sequential map, 12 % resident before, 3 % kernel readahead, 80 % warmed in time, 5 % missed",
        ];
        for columns in [70, 80, 100, 120, 200] {
            for note in notes {
                let text = happening_line(&happening(note), "14:03:59", look(columns));
                for line in text.lines() {
                    assert!(text::width(line) <= columns, "{columns}: {line:?}");
                }
                let words: Vec<&str> = text.split_whitespace().collect();
                assert!(words.join(" ").contains(note), "{text}");
            }
        }
    }

    #[test]
    fn a_pipe_gets_whole_names_on_one_line() {
        let pipe = Look {
            columns: None,
            color: false,
        };
        let text = happening_line(&happening("a note"), "14:03:59", pipe);
        assert_eq!(
            text,
            "14:03:59 DONE organisation/a-model-with-a-long-name-Q4_K_M.gguf  1.99 GiB   7 %  llama-server[47110]   a note"
        );
    }

    #[test]
    fn nothing_from_a_name_or_a_note_controls_the_terminal() {
        let mut evil = happening("note\u{1b}[2J\u{7}");
        evil.model = "a\u{1b}]0;title\u{7}\nDONE b".into();
        evil.program = Some("p\r\u{9b}1m".into());
        for columns in [80, 200] {
            let text = happening_line(&evil, "14:03:59", look(columns));
            assert!(
                text.chars().all(|letter| letter == '\n' || !letter.is_control()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn colour_takes_no_columns() {
        let colored = Look {
            columns: Some(80),
            color: true,
        };
        let plain = happening_line(&happening("reading"), "14:03:59", look(80));
        let painted = happening_line(&happening("reading"), "14:03:59", colored);
        assert_eq!(painted.replace("\u{1b}[1;32m", "").replace("\u{1b}[0m", ""), plain);
    }

    #[test]
    fn what_was_found_is_counted_in_words() {
        let models = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(
            found(&models(&[("ollama", 9), ("gguf", 2)]), 96, ByteCount(80 << 30)),
            "11 models (9 ollama, 2 gguf), 80 GiB in 96 files"
        );
        assert_eq!(
            found(&models(&[]), 1, ByteCount(0)),
            "no model recognised, 0 B in 1 file"
        );
    }
}
