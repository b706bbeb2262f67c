//! Lines of a trace: whatever they say, they are records or an error, and what is made of records holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nitro_user::{
    replay::{demand::Collecting, exact::Replay},
    trace::{
        Decoder, Header, TraceReader,
        export::Kind,
        plot::{Extent, Grids, draw},
        summary::Summing,
    },
};

fuzz_target!(|bytes: &[u8]| {
    // As a file it is none, or one with a checksum that is right by chance.
    if let Ok(trace) = TraceReader::new(bytes, String::new()) {
        trace.for_each(drop);
    }
    let mut records = Vec::new();
    let _ = Decoder::default().read(bytes, &mut records);
    let header = Header::default();
    let (mut summing, mut extent, mut replay) = (Summing::default(), Extent::new(&header), Replay::new(&header));
    let mut collecting = Collecting::new(&header);
    for record in &records {
        summing.add(record);
        extent.add(record);
        collecting.add(record);
        replay.tell(record.clone());
    }
    summing.end(&header);
    replay.end();
    let _ = collecting.end();
    for kind in [Kind::Chrome, Kind::Jsonl, Kind::Csv] {
        let mut format = kind.begin(std::io::sink(), &header).unwrap();
        records.iter().for_each(|record| format.record(record).unwrap());
        format.end().unwrap();
    }
    if let Ok(plan) = extent.plan() {
        let mut grids = Grids::new(plan);
        records.iter().for_each(|record| grids.add(record));
        grids.finish();
        draw(&grids, "fuzz").unwrap();
    }
});
