//! Every load of a day, told: what it found and how long it took, without help and with the agent.

use nitro_user::{
    sim,
    units::{ByteCount, Moment},
};

use super::{
    record::{Cold, Day},
    world::{self, Contender},
};

/// Prints a day.
pub fn day(day: &Day) {
    println!("{}", day.name());
    let run = |contender| sim::run(&world::scenario(day, contender));
    let (without, with) = (run(Contender::None), run(Contender::Agent));
    let percent = |part: u64, whole: u64| 100 * part / whole.max(1);
    let began = |index: usize| {
        with.stays
            .get(index)
            .and_then(|stays| stays.first())
            .map_or(Moment(0), |stay| stay.began)
    };
    let mut order: Vec<usize> = (0..day.loads.len()).collect();
    order.sort_by_key(|index| began(*index));
    for (index, load) in order
        .into_iter()
        .filter_map(|index| Some((index, day.loads.get(index)?)))
    {
        let (Some(served), Some(time), Some(alone)) = (
            with.served.get(index),
            with.reader_times.get(index),
            without.reader_times.get(index),
        ) else {
            continue;
        };
        let of = |bytes: u64| percent(bytes, served.demanded());
        let cold = match load.cold {
            Some(Cold::Early) => "second, early",
            Some(Cold::Late) => "second, late",
            None => "",
        };
        let tally = day.loads.iter().take(index).filter(|load| load.cold.is_some()).count();
        let tally = with.tallies.get(tally).filter(|_| load.cold.is_some());
        let brought = tally.map_or_else(String::new, |tally| {
            format!(
                "brought {}, wasted {}",
                ByteCount(tally.brought),
                ByteCount(tally.brought - tally.used)
            )
        });
        println!(
            "{:9.1} s  {:12} {:16} {:>10}  {:6.2} s -> {:6.2} s  resident {:3} %  in time {:3} %  late {:3} %  itself {:3} %  {cold:13} {brought}",
            began(index).0 as f64 / 1e9,
            load.program,
            day.models.get(load.model).map_or("", |model| &model.name),
            ByteCount(served.demanded()).to_string(),
            alone.as_secs_f64(),
            time.as_secs_f64(),
            of(served.resident),
            of(served.in_time),
            of(served.late),
            of(served.by_itself),
        );
    }
    for receipt in &with.receipts {
        println!(
            "{:9.1} s  receipt {:16} {}",
            receipt.began.0 as f64 / 1e9,
            receipt.model,
            receipt.summary()
        );
    }
}
