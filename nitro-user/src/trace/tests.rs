//! What goes into a trace comes out of it, and nothing that comes out of a file harms.

use std::{path::PathBuf, sync::Arc};

use proptest::{collection::vec, option, prelude::*};

use super::{
    decode::Decoder,
    encode::Encoder,
    export::Kind,
    file::{TraceError, TraceReader, TraceWriter},
    frame::Frame,
    plot::{Extent, Grids, draw},
    record::{CallKind, Header, Loss, Record},
    summary::Summing,
    wire::KINDS,
};
use crate::{
    catalog::model::{Description, LayoutKind, Model, Part, Place},
    engine::{
        action::{LoadId, ModelPin},
        input::{Access, Command, FileCounts, Input, Item, MachineMemory, OrderId, Outcome, StepEnd, User},
        plan::device::{HeldOut, Knowledge, Setback, Streams},
    },
    sys::top::{Elsewhere, Top},
    units::{ByteCount, ByteRange, FileId, Moment, Rate},
};

fn file() -> impl Strategy<Value = FileId> {
    prop_oneof![
        (0u32..3, 0u64..4).prop_map(|(device, inode)| FileId { device, inode }),
        any::<(u32, u64)>().prop_map(|(device, inode)| FileId { device, inode }),
    ]
}

fn range() -> impl Strategy<Value = ByteRange> {
    prop_oneof![
        (0u64..1 << 40, 0u64..1 << 24).prop_map(|(start, length)| ByteRange::new(start, length)),
        (0u64..=1 << 62, any::<u32>()).prop_map(|(start, length)| ByteRange::new(start, length.into())),
    ]
}

/// Bytes, or calls.
fn sum() -> impl Strategy<Value = u64> {
    0u64..=1 << 62
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![1_000_000u64..2_000_000, any::<u64>()].prop_map(Moment)
}

fn path() -> impl Strategy<Value = PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    vec(1u8.., 0..12).prop_map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

fn place() -> impl Strategy<Value = Place> {
    (path(), option::of(any::<(u32, u64)>()), path()).prop_map(|(root, elsewhere, below)| {
        let root = PathBuf::from("/").join(root);
        Place {
            root: match elsewhere {
                // As it is made: below the root of that process.
                Some((process, namespace)) => Top::elsewhere(Elsewhere { process, namespace }, &root),
                None => root.as_path().into(),
            },
            below,
        }
    })
}

fn part() -> impl Strategy<Value = Part> {
    (
        file(),
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
        place(),
        option::of(place()),
    )
        .prop_map(|(file, size, header, generation, place, layer)| Part {
            file,
            size,
            header,
            generation,
            place,
            layer,
        })
}

fn model() -> impl Strategy<Value = Arc<Model>> {
    let layouts = prop_oneof![
        Just(LayoutKind::Ollama),
        Just(LayoutKind::Gguf),
        Just(LayoutKind::Single)
    ];
    (".{0,8}", layouts, vec(part(), 0..4), any::<[bool; 3]>()).prop_map(|(name, layout, parts, [one, two, three])| {
        Arc::new(Model {
            name,
            layout,
            parts,
            observe_only: one,
            lent: two,
            changes_unseen: three,
        })
    })
}

fn description() -> impl Strategy<Value = Description> {
    (file(), model(), 0usize..5, option::of(moment())).prop_map(|(file, model, position, written)| Description {
        file,
        model,
        position,
        written,
    })
}

fn access() -> impl Strategy<Value = Access> {
    (
        moment(),
        0u32..4,
        any::<u32>(),
        file(),
        0u32..3,
        range(),
        0usize..6,
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(at, process, thread, file, generation, range, kind, [jump, in_order, written])| Access {
                at,
                process,
                thread,
                file,
                generation,
                range,
                kind: KINDS[kind],
                jump,
                in_order,
                written,
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let ends = prop_oneof![Just(StepEnd::Done), Just(StepEnd::Cancelled), Just(StepEnd::Namesake)];
    (
        any::<u64>(),
        0usize..9,
        file(),
        range(),
        ends,
        [sum(), sum(), sum(), sum()],
        moment(),
        moment(),
    )
        .prop_map(
            |(load, part, file, range, end, [before, after, beyond, held], submitted, completed)| Outcome {
                load: LoadId(load),
                part,
                file,
                device: file.device,
                range,
                end,
                before,
                after,
                beyond,
                held,
                submitted,
                completed,
            },
        )
}

fn counts() -> impl Strategy<Value = FileCounts> {
    (option::of(file()), [sum(), sum(), sum(), sum()]).prop_map(|(file, [calls, bytes, added, missed])| FileCounts {
        file,
        calls,
        bytes,
        added,
        missed,
    })
}

fn knowledge() -> impl Strategy<Value = Knowledge> {
    let rate = || option::of((0u32..).prop_map(|rate| Rate(f64::from(rate))));
    let setback = || (any::<u32>(), any::<u32>()).prop_map(|(times, rest)| Setback { times, rest });
    let streams = move || {
        let some = || option::of(any::<u16>().prop_map(f32::from));
        (some(), some()).prop_map(|(rate, step)| Streams { rate, step })
    };
    let held_out = (any::<u32>(), any::<bool>(), any::<u16>()).prop_map(|(program, only_reads, loads)| HeldOut {
        program,
        only_reads,
        loads,
        rate: f32::from(loads),
    });
    let setbacks = (setback(), setback());
    let rates = (rate(), rate(), rate());
    (
        rates,
        setbacks,
        streams(),
        streams(),
        proptest::array::uniform4(held_out),
    )
        .prop_map(
            |((rate, reads, maps), (one, other), one_stream, several_streams, held_out)| Knowledge {
                rate,
                reads_alone: reads,
                maps_alone: maps,
                reads_setback: one,
                maps_setback: other,
                one_stream,
                several_streams,
                held_out,
            },
        )
}

fn user() -> impl Strategy<Value = User> {
    (any::<u32>(), vec(file(), 0..3), any::<bool>(), any::<u64>()).prop_map(|(process, maps, accelerator, bytes)| {
        User {
            process,
            maps,
            accelerator,
            anonymous: ByteCount(bytes),
        }
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::Pin),
        Just(Command::Unpin),
        Just(Command::Warm),
        Just(Command::Evict)
    ]
}

fn item() -> impl Strategy<Value = Item> {
    (description(), vec(0usize..99, 0..4)).prop_map(|(description, parts)| Item {
        model: description.model,
        parts,
    })
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => access().prop_map(Input::Access),
        2 => (file(), option::of(description())).prop_map(|(file, description)| Input::Described { file, description }),
        1 => (any::<u32>(), description()).prop_map(|(process, description)| Input::Named { process, description }),
        1 => (any::<u32>(), ".{0,15}", any::<u32>()).prop_map(|(process, name, user)| Input::Program { process, name, user }),
        1 => (any::<u32>(), file()).prop_map(|(process, file)| Input::Direct { process, file }),
        4 => outcome().prop_map(Input::Outcome),
        2 => (file(), range()).prop_map(|(file, range)| Input::Removed { file, range }),
        1 => any::<u32>().prop_map(|process| Input::Ended { process }),
        1 => (any::<u64>(), vec(counts(), 0..4)).prop_map(|(load, counts)| Input::Counted { load: LoadId(load), counts }),
        1 => (any::<u64>(), sum()).prop_map(|(load, added)| Input::Added { load: LoadId(load), added }),
        1 => (any::<u32>(), knowledge()).prop_map(|(device, knowledge)| Input::Recalled { device, knowledge }),
        1 => file().prop_map(|file| Input::Gone { file }),
        1 => path().prop_map(|path| Input::Unwatched { path }),
        1 => file().prop_map(|file| Input::Changed { file }),
        1 => option::of(moment()).prop_map(|until| Input::Pause { until }),
        1 => Just(Input::Resume),
        1 => any::<bool>().prop_map(Input::Battery),
        1 => any::<u64>().prop_map(|ceiling| Input::Ceiling(ByteCount(ceiling))),
        1 => (any::<[u64; 6]>(), option::of(any::<u64>())).prop_map(|([available, free, stalled, devices, reclaimed, restored], room)| {
            Input::Memory(MachineMemory {
                available: ByteCount(available),
                free: ByteCount(free),
                room: room.map(ByteCount),
                stalled: std::time::Duration::from_micros(stalled),
                devices_stalled: std::time::Duration::from_micros(devices),
                reclaimed: ByteCount(reclaimed),
                restored: ByteCount(restored),
            })
        }),
        1 => vec(user(), 0..4).prop_map(Input::Users),
        1 => (path(), option::of(description())).prop_map(|(path, description)| Input::Found { path, description }),
        1 => (any::<u64>(), command(), vec(item(), 0..4)).prop_map(|(order, command, items)| Input::Ordered {
            order: OrderId(order),
            command,
            items,
        }),
        1 => any::<u64>().prop_map(|order| Input::Withdrawn { order: OrderId(order) }),
        1 => vec(any::<u64>().prop_map(ModelPin), 0..4).prop_map(|pins| Input::Unheld { pins }),
        1 => option::of(path()).prop_map(|path| Input::Forget { path }),
        1 => Just(Input::Tick),
    ]
}

/// Anything that a trace can hold.
pub fn record() -> impl Strategy<Value = Record> {
    let calls = prop_oneof![Just(CallKind::Open), Just(CallKind::Read), Just(CallKind::Map)];
    prop_oneof![
        6 => (moment(), input()).prop_map(|(at, input)| match input {
            // It carries its time itself.
            Input::Access(access) => Record::Input { at: access.at, input },
            input => Record::Input { at, input },
        }),
        3 => (moment(), any::<u32>(), any::<u32>(), file(), range())
            .prop_map(|(at, process, thread, file, range)| Record::Brought { at, process, thread, file, range }),
        2 => (moment(), any::<u32>(), any::<u32>(), file(), calls, any::<bool>(), range())
            .prop_map(|(at, process, thread, file, kind, direct, range)| {
                Record::Call { at, process, thread, file, kind, direct, range }
            }),
        1 => (moment(), any::<u32>(), file(), [sum(), sum(), sum(), sum()])
            .prop_map(|(at, process, file, [calls, bytes, added, missed])| {
                Record::Counts { at, process, file, calls, bytes, added, missed }
            }),
        1 => (moment(), any::<u32>(), ".{0,15}").prop_map(|(at, process, name)| Record::Process { at, process, name }),
        1 => (moment(), file(), path(), any::<u64>()).prop_map(|(at, file, path, size)| Record::File { at, file, path, size }),
        1 => (moment(), any::<[u64; 3]>())
            .prop_map(|(at, [ring, rate, slow])| Record::Lost { at, loss: Loss { ring, rate, slow } }),
    ]
}

/// The bytes of a trace of these records.
fn written(records: &[Record]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.trace");
    let mut writer = TraceWriter::create(&path, &header()).unwrap();
    for (number, record) in records.iter().enumerate() {
        writer.record(record).unwrap();
        if number % 7 == 0 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

fn header() -> Header {
    Header {
        format: super::VERSION,
        kernel: "6.18".into(),
        ..Header::default()
    }
}

fn read(bytes: &[u8]) -> (Vec<Record>, bool) {
    let mut reader = TraceReader::new(bytes, "a.trace".into()).unwrap();
    let records = reader.by_ref().collect();
    (records, reader.tear().is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_recorded_is_read_as_it_was(records in vec(record(), 0..120)) {
        let (read, torn) = read(&written(&records));
        prop_assert!(!torn);
        prop_assert_eq!(read, records);
    }

    #[test]
    fn a_torn_file_is_read_up_to_the_tear(records in vec(record(), 1..60), cut in any::<prop::sample::Index>()) {
        let bytes = written(&records);
        let cut = cut.index(bytes.len());
        match TraceReader::new(&bytes[..cut], "a.trace".into()) {
            Err(error) => prop_assert!(matches!(error, TraceError::Empty(_) | TraceError::NoTrace(_))),
            Ok(mut reader) => {
                let read: Vec<Record> = reader.by_ref().collect();
                prop_assert_eq!(&read[..], &records[..read.len()]);
                prop_assert!(reader.tear().is_some() || read.len() < records.len() || cut == bytes.len());
            }
        }
    }

    #[test]
    fn what_is_made_of_records_holds_whatever_they_are(records in vec(record(), 0..60)) {
        let header = header();
        let (mut summing, mut extent) = (Summing::default(), Extent::new(&header));
        for record in &records {
            summing.add(record);
            extent.add(record);
        }
        summing.end(&header);
        for kind in [Kind::Chrome, Kind::Jsonl, Kind::Csv] {
            let mut text = Vec::new();
            let mut format = kind.begin(&mut text, &header).unwrap();
            records.iter().for_each(|record| format.record(record).unwrap());
            format.end().unwrap();
            if kind == Kind::Chrome {
                serde_json::from_slice::<serde_json::Value>(&text).unwrap();
            }
        }
        if let Ok(plan) = extent.plan() {
            let mut grids = Grids::new(plan);
            records.iter().for_each(|record| grids.add(record));
            grids.finish();
            prop_assert!(draw(&grids, "<&>").unwrap().contains("</svg>"));
        }
    }

    #[test]
    fn no_line_makes_the_decoder_panic(bytes in vec(any::<u8>(), 0..300)) {
        let mut records = Vec::new();
        let _ = Decoder::default().read(&bytes, &mut records);
    }

    #[test]
    fn lines_with_a_changed_byte_are_records_or_an_error(records in vec(record(), 1..20), at in any::<prop::sample::Index>(), with in 1u8..) {
        let mut encoder = Encoder::default();
        records.iter().for_each(|record| encoder.write(record));
        let mut bytes = encoder.take();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let mut read = Vec::new();
        let _ = Decoder::default().read(&bytes, &mut read);
    }
}

#[test]
fn what_is_no_trace_says_so() {
    let fails = |bytes: &[u8]| TraceReader::new(bytes, "x".into()).err().unwrap().to_string();
    assert!(fails(b"").contains("no trace"));
    assert!(fails(b"GGUF....................").contains("no trace"));
    assert!(fails(&super::MAGIC).contains("holds nothing"));
    let mut other = super::MAGIC.to_vec();
    let newer = Header {
        format: 99,
        agent: "9.9".into(),
        ..Header::default()
    };
    other.extend(Frame::pack(&serde_json::to_vec(&newer).unwrap()).unwrap().bytes());
    assert!(fails(&other).contains("format 99"));
    let mut foreign = super::MAGIC.to_vec();
    foreign.extend(Frame::pack(b"not json").unwrap().bytes());
    assert!(fails(&foreign).contains("no trace"));
}

#[test]
fn a_name_that_is_taken_stays_what_it_is() {
    let taken = tempfile::NamedTempFile::new().unwrap();
    let error = TraceWriter::create(taken.path(), &header()).unwrap_err();
    assert!(error.to_string().contains("exists"), "{error}");
    assert_eq!(taken.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn tables_that_are_full_begin_anew() {
    let accesses = (0..300_000u32).map(|number| {
        let at = Moment(u64::from(number));
        let access = Access {
            at,
            process: number,
            thread: number,
            file: FileId {
                device: 1,
                inode: u64::from(number % 5),
            },
            generation: 0,
            range: ByteRange::new(u64::from(number) << 21, 4096),
            kind: KINDS[0],
            jump: false,
            in_order: false,
            written: false,
        };
        let input = Input::Access(access);
        Record::Input { at, input }
    });
    let records: Vec<Record> = accesses.collect();
    let (read, torn) = read(&written(&records));
    assert!(!torn && read == records);
}
