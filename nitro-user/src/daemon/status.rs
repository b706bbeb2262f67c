//! The agent's state, put together when somebody asks.
//!
//! In: the engine, the event source and what was said at the start. Out: a [`Status`]. A few map look-ups and small files of /proc and /sys; nothing
//! is kept.

use nitro_common::{Counters, settings::maps};

use super::Started;
use crate::{
    engine::{
        Engine,
        foresight::Tally,
        holdings::Holding,
        load::{Load, Stage},
        plan::device::Device,
    },
    observe::status::{
        CounterStatus, DeviceStatus, ForesightStatus, FullMap, HoldingStatus, KeptStatus, LoadStatus, ProgramStatus,
        RightsStatus, Status,
    },
    source::events::EventSource,
    sys::{block, cgroup, clock},
    units::{ByteCount, Moment},
};

/// The state now. `ready` is when the agent had started.
pub fn status(started: &Started, ready: Moment, engine: &Engine, source: &EventSource) -> Status {
    let misses = source.recursion_misses();
    let usage = source.usage();
    let (counters, ring_received) = source.counters().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Default::default()
    });
    let programs = started.attachment.programs.iter().map(|report| ProgramStatus {
        program: report.program.to_owned(),
        hook: report.hook.to_owned(),
        refused: report.refused.clone(),
        recursion_misses: misses.get(report.program).copied(),
    });
    let full = [
        (maps::WATCHED, usage.without_room),
        (maps::CURSORS, counters.cursors_full),
        (maps::EVENTS, counters.dropped),
    ];
    Status {
        version: started.version.to_owned(),
        pid: std::process::id(),
        kernel: started.kernel.clone(),
        uptime_seconds: clock::now().since(ready).as_secs_f64(),
        dry_run: started.dry_run,
        paused: engine.paused().is_some(),
        paused_seconds: engine
            .paused()
            .flatten()
            .map(|until| until.since(clock::now()).as_secs_f64()),
        mode: started.attachment.mode.to_string(),
        mode_reason: started.attachment.why.clone(),
        programs: programs.collect(),
        roots: started.found.roots.clone(),
        directories: started.found.directories.clone(),
        unwatched: started.found.unwatched.clone(),
        auto: started.auto.clone(),
        models: started.found.models.clone(),
        files: started.found.files,
        bytes: started.found.bytes,
        watched: usage.watched,
        watched_capacity: usage.capacity,
        ceiling: engine.ceiling(),
        held: engine.held(),
        held_percent: engine.held_percent(),
        pinned: ByteCount(engine.retention().pinned()),
        pin: engine.policy().retain.pin,
        kept: kept_status(engine),
        foresight: foresight_status(engine),
        pressure: engine.strain().reason().map(str::to_owned),
        rights: RightsStatus {
            capabilities: started.confined.capabilities.clone(),
            no_new_privileges: started.confined.no_new_privileges,
            system_calls_filtered: started.confined.filtered,
        },
        on_battery: engine.spares(),
        holdings: engine
            .holdings()
            .into_iter()
            .map(|holding| holding_status(holding, engine.charges_consumer()))
            .collect(),
        own_cgroup: group_of(std::process::id()),
        loads: engine
            .loads()
            .filter(|load| load.stage != Stage::Ended)
            .map(load_status)
            .collect(),
        devices: engine.devices().map(device_status).collect(),
        counters: counter_status(&counters),
        ring_received,
        recursion_misses: (!misses.is_empty()).then(|| misses.values().sum()),
        full_maps: full
            .into_iter()
            .filter(|(_, refused)| *refused > 0)
            .map(|(map, refused)| FullMap {
                map: map.to_owned(),
                refused,
            })
            .collect(),
    }
}

fn load_status(load: &Load) -> LoadStatus {
    LoadStatus {
        model: load.model.name.clone(),
        program: load.readers.program().map(str::to_owned),
        pid: load.readers.first(),
        user: load.readers.user(),
        stage: load.stage.name().to_owned(),
        skipped: match load.stage {
            Stage::Skipped(skip) => Some(skip.reason().to_owned()),
            _ => None,
        },
        window: load.window(),
        in_flight: ByteCount(load.in_flight),
        bytes: load.model_bytes(),
    }
}

fn foresight_status(engine: &Engine) -> ForesightStatus {
    let Tally { warmed, met, in_vain } = engine.foresight().tally();
    ForesightStatus { warmed, met, in_vain }
}

fn kept_status(engine: &Engine) -> Vec<KeptStatus> {
    let (now, half_life) = (clock::now(), engine.policy().retain.half_life);
    let mut kept: Vec<KeptStatus> = engine
        .retention()
        .kept()
        .map(|(_, kept)| KeptStatus {
            model: kept.model.name.clone(),
            bytes: ByteCount(kept.bytes()),
            heat: kept.heat.at(now, half_life),
            pinned: ByteCount(kept.pin.held),
            asked: kept.asked,
            mapped_by: kept.mapped_by.iter().copied().collect(),
            elsewhere: kept.is_elsewhere(),
            evicted: ByteCount(kept.bytes_lost().min(kept.bytes())),
        })
        .collect();
    kept.sort_by(|one, other| other.heat.total_cmp(&one.heat));
    kept
}

fn group_of(process: u32) -> Option<String> {
    cgroup::of_process(process).map(|group| group.name().to_owned())
}

fn holding_status(holding: Holding, charges_consumer: bool) -> HoldingStatus {
    let payer = if charges_consumer {
        holding.process
    } else {
        std::process::id()
    };
    HoldingStatus {
        user: holding.user,
        charged_to: group_of(payer),
        model: holding.model,
        program: holding.program,
        pid: holding.process,
        bytes: holding.bytes,
    }
}

fn device_status((number, device): (u32, &Device)) -> DeviceStatus {
    DeviceStatus {
        number: (number >> 20, number & 0xf_ffff),
        name: block::name(number),
        rate: device.rate(),
        in_flight: ByteCount(device.in_flight()),
    }
}

fn counter_status(counters: &Counters) -> CounterStatus {
    CounterStatus {
        seen: counters.seen,
        filtered: counters.filtered,
        coalesced: counters.coalesced,
        delivered: counters.delivered,
        dropped: counters.dropped,
        cursors_full: counters.cursors_full,
    }
}
