// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any sequence of events: the device does not panic, does not hang, and sends nothing that its
//! state forbids.

use super::*;
use crate::testing::{Service, World};
use crate::{Config, config_space};
use pcie_ats::{
    AlignedRange, Function, InvalidateRequest, Itag, PrgResponse, Prgi, Reset, ResponseCode,
    TranslationError,
};
use proptest::prelude::*;
use svm_abi::registers::{REGISTERS_SIZE, context, control, status};

const CONTEXTS: u16 = 3;

#[derive(Clone, Debug)]
enum Event {
    Step(u8),
    Start(u16, u32),
    Stop(u16),
    Submit(u16, Descriptor),
    Doorbell(u16, u64),
    Register(u64, u64, u8),
    Config(u16, u32, u32),
    Enable(u32),
    Serve(ResponseCode),
    Stray(u16, Option<u32>, u8),
    Invalidate(Option<u32>, u64, u8, bool),
    Evict(u64),
    Map(u64, bool),
    Unmap(u64),
    Fail(Option<TranslationError>),
    Service(Service),
    Reset,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (0u64..8, 0u64..4096).prop_map(|(page, offset)| HERE + (page << 12) + offset),
        20 => (0u64..8, 0u64..512).prop_map(|(page, word)| HERE + (page << 12) + 8 * word),
        1 => any::<u64>(),
        1 => Just(0xfedf_fff0),
        1 => 0u64..0x100,
        1 => any::<u64>().prop_map(|n| !(n % 8192)),
    ]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let small = prop_oneof![9 => 0u64..0x3000, 1 => any::<u64>()];
    let operand = prop_oneof![5 => Just(0), 5 => (0u64..8).prop_map(|n| 8 * n), 1 => any::<u64>()];
    let operation = prop_oneof![20 => 0u8..7, 10 => 7u8..14, 1 => 14u8..];
    let flags = prop_oneof![8 => Just(flags::BLOCK_ON_FAULT), 4 => 0u8..8, 1 => 8u8..];
    (
        operation,
        flags,
        address(),
        address(),
        small,
        operand.clone(),
        operand,
        0u64..20,
    )
        .prop_map(
            |(operation, flags, source, destination, length, operand0, operand1, completion)| {
                use Operation::{
                    Batch, CacheControl, Chase, Compare, CompareSwap, Copy, Crc32c, FetchAdd, Fill,
                    Gather, Prefetch, Translate,
                };
                let is = |of: &[Operation]| of.iter().any(|o| *o as u8 == operation);
                let readers = [
                    Copy,
                    Compare,
                    Crc32c,
                    Chase,
                    Gather,
                    Prefetch,
                    Translate,
                    CacheControl,
                    Batch,
                ];
                let writers = [Copy, Compare, Fill, FetchAdd, CompareSwap, Gather];
                let measured = [
                    Copy,
                    Compare,
                    Crc32c,
                    Chase,
                    Fill,
                    Gather,
                    Prefetch,
                    CacheControl,
                    Batch,
                ];
                let with_operand = [Fill, Crc32c, FetchAdd, Chase, CompareSwap, Gather];
                // Most reserved fields are 0, so that most descriptors do something.
                let keep = |value: u64, keep: bool| if keep { value } else { 0 };
                Descriptor {
                    operation,
                    flags,
                    source: match operation {
                        // Mostly aligned, as lists must be.
                        _ if is(&[Batch, Gather]) && completion < 18 => source & !63,
                        _ => keep(source, is(&readers)),
                    },
                    destination: keep(destination, is(&writers)),
                    length: match operation {
                        _ if is(&[Batch, Gather]) && completion < 18 => length % 100,
                        _ => keep(length, is(&measured)),
                    },
                    operand0: keep(operand0, is(&with_operand)),
                    operand1: keep(operand1, is(&[Chase, CompareSwap])),
                    completion: if completion == 19 { source } else { 0 },
                    ..Descriptor::default()
                }
            },
        )
}

fn code() -> impl Strategy<Value = ResponseCode> {
    prop_oneof![
        12 => Just(ResponseCode::Success),
        3 => Just(ResponseCode::InvalidRequest),
        1 => Just(ResponseCode::ResponseFailure),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..CONTEXTS;
    let page = (0u64..8).prop_map(|page| HERE + (page << 12));
    let service = prop_oneof![
        5 => Just(Service::Later),
        3 => Just(Service::Now),
        1 => Just(Service::Pretend),
        1 => code().prop_map(Service::Refuse),
    ];
    let error = prop_oneof![
        9 => Just(None),
        1 => Just(Some(TranslationError::UnsupportedRequest)),
        1 => Just(Some(TranslationError::CompleterAbort)),
    ];
    let structures = prop_oneof![
        Just(4u16),
        Just(config_space::ATS + 4),
        Just(config_space::PASID + 4),
        Just(config_space::PRI + 4),
        Just(config_space::PRI + 12),
    ];
    // Without large smallest translation units, which this world does not support.
    let config = (structures, any::<u32>(), any::<u32>()).prop_map(|(at, value, mask)| {
        Event::Config(at, value & !(0x1f << 16), mask & !(0x1e << 16))
    });
    prop_oneof![
        30 => (1u8..20).prop_map(Event::Step),
        8 => (n.clone(), 1u32..3).prop_map(|(n, pasid)| Event::Start(n, pasid)),
        2 => n.clone().prop_map(Event::Stop),
        40 => (n.clone(), descriptor()).prop_map(|(n, d)| Event::Submit(n, d)),
        1 => (n, any::<u64>()).prop_map(|(n, tail)| Event::Doorbell(n, tail)),
        1 => (0..REGISTERS_SIZE, any::<u64>(), any::<u8>()).prop_map(|(a, v, s)| Event::Register(a, v, s)),
        1 => config,
        4 => (0u32..70).prop_map(Event::Enable),
        20 => code().prop_map(Event::Serve),
        1 => (0u16..512, proptest::option::of(0u32..3), 0u8..16).prop_map(|(g, p, c)| Event::Stray(g, p, c)),
        5 => (proptest::option::weighted(0.9, 1u32..3), address(), 12u8..=64, any::<bool>())
            .prop_map(|(p, a, s, g)| Event::Invalidate(p, a, s, g)),
        6 => page.clone().prop_map(Event::Evict),
        3 => (page.clone(), any::<bool>()).prop_map(|(a, w)| Event::Map(a, w)),
        1 => page.prop_map(Event::Unmap),
        1 => error.prop_map(Event::Fail),
        3 => service.prop_map(Event::Service),
        1 => Just(Event::Reset),
    ]
}

fn apply(world: &World, event: &Event) {
    let e = &world.endpoint;
    match event {
        Event::Step(count) => {
            for _ in 0..*count {
                e.step(world);
            }
        }
        Event::Start(n, pasid) => world.start(*n, *pasid),
        Event::Stop(n) => world.set(*n, context::CONTROL, control::STOP),
        Event::Submit(n, descriptor) => {
            let pasid = world.get(*n, context::PASID) as u32 & 0xf_ffff;
            if pasid == 1 || pasid == 2 {
                world.submit_to(*n, pasid, *descriptor);
            }
        }
        Event::Doorbell(n, tail) => world.doorbell(*n, *tail),
        Event::Register(offset, value, size) => {
            e.bar_write(0, *offset, *value, *size);
            e.bar_write(2, *offset, *value, *size);
            e.bar_read(0, *offset, *size);
            e.bar_read(2, *offset, *size);
        }
        Event::Config(offset, value, mask) => {
            e.config_write(*offset, *value, *mask);
            if e.config_read(config_space::PRI + 4) >> 24 & 1 != 0 {
                // The device has nothing outstanding, or has forgotten it.
                world.inner.lock().unwrap().queue.clear();
            }
        }
        Event::Enable(allocation) => {
            if e.config_read(config_space::PRI + 4) >> 16 & 1 != 0 {
                // After a failure, as a driver would: off, reset, and on again.
                e.config_write(config_space::PRI + 4, 0, 0xffff);
                e.config_write(config_space::PRI + 4, 2, 0xffff);
                world.inner.lock().unwrap().queue.clear();
            }
            world.enable(*allocation);
        }
        Event::Serve(code) => {
            world.serve(*code);
        }
        Event::Stray(group, pasid, code) => e.prg_response(&PrgResponse {
            prgi: Prgi::new(*group).unwrap(),
            pasid: pasid.map(crate::testing::pid),
            code: ResponseCode::from_bits(*code),
        }),
        Event::Invalidate(pasid, address, shift, global) => {
            let answer = e.invalidate(&InvalidateRequest {
                itag: Itag::new(7).unwrap(),
                pasid: pasid.map(crate::testing::pid),
                range: AlignedRange::containing(*address, *shift).unwrap(),
                global: *global,
            });
            assert_eq!(answer, pcie_ats::Invalidation::Completed);
        }
        Event::Evict(address) => {
            for pasid in 1..3 {
                if world.mapping(pasid, *address).is_some() {
                    world.change(pasid, *address, |m| m.present = false);
                    let _ = world.invalidate(pasid, AlignedRange::page(*address));
                }
            }
        }
        Event::Map(address, write) => {
            for pasid in 1..3 {
                world.map_absent(pasid, *address, *write);
                let _ = world.invalidate(pasid, AlignedRange::page(*address));
            }
        }
        Event::Unmap(address) => {
            for pasid in 1..3 {
                if world.mapping(pasid, *address).is_some() {
                    world.unmap(pasid, *address);
                    let _ = world.invalidate(pasid, AlignedRange::page(*address));
                }
            }
        }
        Event::Fail(error) => world.inner.lock().unwrap().error = *error,
        Event::Service(service) => *world.service.lock().unwrap() = *service,
        Event::Reset => {
            e.reset(Reset::FunctionLevel);
            world.inner.lock().unwrap().queue.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn rule_48_no_sequence_of_events_breaks_the_device(
        entries_log2 in 2u32..8,
        events in prop::collection::vec(event(), 1..200),
    ) {
        let world = World::new(Config {
            contexts: CONTEXTS,
            atc_entries: 1 << entries_log2,
            ..Config::default()
        });
        world.judge();
        world.enable(16);
        for n in 0..CONTEXTS {
            world.start(n, u32::from(n % 2) + 1);
        }
        for page in 0..10 {
            for pasid in 1..3 {
                world.map_absent(pasid, HERE + (page << 12), page != 7);
            }
        }
        for event in &events {
            apply(&world, event);
        }
        // Whatever happened, stopped contexts become idle as soon as the responses have arrived.
        for n in 0..CONTEXTS {
            world.set(n, context::CONTROL, control::STOP);
        }
        while !world.serve(ResponseCode::Success).is_empty() {}
        world.run();
        for n in 0..CONTEXTS {
            prop_assert_eq!(world.get(n, context::STATUS), u64::from(status::DISABLED));
        }
        world.endpoint.config_write(config_space::PRI + 4, 0, 1);
        prop_assert!(world.endpoint.config_read(config_space::PRI + 4) >> 24 & 1 != 0, "stopped");
        // And it works as at the beginning.
        *world.service.lock().unwrap() = Service::Now;
        world.inner.lock().unwrap().error = None;
        world.endpoint.config_write(config_space::ATS + 4, 0, 1 << 31);
        world.enable(64);
        world.start(0, 1);
        world.map_absent(1, HERE, true);
        success(world.perform(fill(HERE, 100)));
    }
}
