// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Metrics for Prometheus: what the counters of cards and switches are called, and what they mean.
//!
//! Nothing is counted here. At each scrape the counters are read that the workers keep anyway.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use vnet_card::{LinkReport, QueueReport};
use vnet_contract::queue::{kind, Error as QueueError, Kind};
use vnet_generator::Report as GeneratorReport;
use vnet_shape::Report as ShapeReport;

use crate::switches::{self, SwitchReport};
use crate::views::{View, Views};

/// The metrics of these cards and of all switches, each name beginning with `vnet_`.
pub(crate) fn registry(views: Views) -> Registry {
    let mut registry = Registry::with_prefix("vnet");
    registry.register_collector(Box::new(Metrics(views)));
    registry
}

struct Metrics(Views);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").finish()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cards: Vec<_> = self.0.load().iter().map(Card::new).collect();
        let mut out = Out(&mut encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut build = out.family("build", "The program", None, MetricType::Info)?;
        build.encode_info(&version)?;
        describe_cards(&mut out, &cards)?;
        describe_queues(&mut out, &cards)?;
        describe_shapes(&mut out, &cards)?;
        describe_generators(&mut out, &cards)?;
        describe_switches(&mut out, &switches::reports())
    }
}

/// What is read of a card for one scrape.
struct Card {
    view: Arc<View>,
    link: LinkReport,
    queues: Vec<QueueReport>,
    shape: Option<[ShapeReport; 2]>,
    generator: Option<GeneratorReport>,
}

impl Card {
    fn new(view: &Arc<View>) -> Self {
        let beside = view.beside.get();
        Self {
            link: view.operator.link(),
            queues: view.operator.queues().collect(),
            shape: beside.shape.map(|counters| counters.totals()),
            generator: beside.generator.map(|counters| counters.report()),
            view: Arc::clone(view),
        }
    }

    fn labels(&self) -> Labels {
        vec![("card", self.view.name.to_string())]
    }

    /// Its queues, with their labels.
    fn queues(&self) -> impl Iterator<Item = (Labels, &QueueReport)> {
        (0u16..).zip(&self.queues).map(|(index, queue)| {
            let direction = match kind(index) {
                Kind::Rx => "receive",
                Kind::Tx => "transmit",
            };
            let mut labels = self.labels();
            labels.push(("pair", (index / 2).to_string()));
            labels.push(("direction", direction.into()));
            (labels, queue)
        })
    }
}

type Labels = Vec<(&'static str, String)>;

/// Writes families of metrics.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    /// Numbers that only grow. The format adds `_total` to their name.
    fn counter(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        samples: impl Iterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            let mut sample = family.encode_family(&labels)?;
            sample.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    /// Numbers that come and go.
    fn gauge(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        samples: impl Iterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

fn describe_cards(out: &mut Out<'_, '_>, cards: &[Card]) -> fmt::Result {
    let mut info = out.family("card", "A card and its backend", None, MetricType::Info)?;
    for card in cards {
        let mut labels = card.labels();
        labels.push(("backend", card.view.net().to_string()));
        labels.push(("socket", card.view.socket.display().to_string()));
        info.encode_info(&labels)?;
    }
    let each = |value: fn(&Card) -> bool| {
        let sample = move |card: &Card| (card.labels(), u64::from(value(card)));
        cards.iter().map(sample)
    };
    out.gauge(
        ("card_serving", None),
        "Whether the card is served; 0: it has failed",
        each(|card| !card.view.failed),
    )?;
    out.gauge(
        ("card_client_connected", None),
        "Whether a virtual machine is connected",
        each(|card| card.view.control.peer().is_some()),
    )?;
    out.gauge(
        ("card_link_up", None),
        "Whether the driver is told that the link is up",
        each(|card| card.link.link.up),
    )?;
    out.gauge(
        ("card_backend_link_up", None),
        "Whether the backend says that the link is up",
        each(|card| card.link.backend.up),
    )?;
    // A speed in Mbit/s, as bytes a second.
    let speeds = cards.iter().filter_map(|card| {
        let speed = card.link.link.speed?;
        Some((card.labels(), u64::from(speed) * (1_000_000 / 8)))
    });
    out.gauge(
        ("card_link_speed", Some(Unit::Bytes)),
        "Speed of the link by the second, if it is known",
        speeds,
    )
}

fn describe_queues(out: &mut Out<'_, '_>, cards: &[Card]) -> fmt::Result {
    let each = |value: fn(&QueueReport) -> u64| {
        let queues = cards.iter().flat_map(Card::queues);
        queues.map(move |(labels, queue)| (labels, value(queue)))
    };
    out.counter(
        ("queue_frames", None),
        "Frames carried",
        each(|queue| queue.counters.frames),
    )?;
    out.counter(
        ("queue", Some(Unit::Bytes)),
        "Bytes carried",
        each(|queue| queue.counters.bytes),
    )?;
    let drops = cards
        .iter()
        .flat_map(Card::queues)
        .flat_map(|(labels, queue)| {
            let drops: Vec<_> = queue.drops.iter().collect();
            drops.into_iter().map(move |(why, frames)| {
                let mut labels = labels.clone();
                labels.push(("reason", why.name().into()));
                (labels, frames)
            })
        });
    out.counter(
        ("queue_dropped_frames", None),
        "Frames dropped, by reason; those that the backend lost are among them",
        drops,
    )?;
    out.counter(
        ("queue_errors", None),
        "Times that the queue stopped with an error",
        each(|queue| queue.counters.errors),
    )?;
    out.counter(
        ("queue_doorbells", None),
        "Doorbells received",
        each(|queue| queue.counters.doorbells),
    )?;
    out.counter(
        ("queue_interrupts", None),
        "Interrupts raised",
        each(|queue| queue.counters.interrupts),
    )?;
    out.gauge(
        ("queue_stopped", None),
        "Whether an error has stopped the queue",
        each(|queue| QueueError::from_code(queue.error).is_some().into()),
    )?;
    let fills = |value: fn(vnet_card::Fill) -> u16| {
        let queues = cards.iter().flat_map(Card::queues);
        queues.filter_map(move |(labels, queue)| Some((labels, value(queue.fill?).into())))
    };
    out.gauge(
        ("queue_ring_waiting", None),
        "Chains that the driver has made available and not got back: frames to send, or buffers",
        fills(|fill| fill.waiting),
    )?;
    out.gauge(
        ("queue_ring_size", None),
        "Descriptors of the ring",
        fills(|fill| fill.size),
    )?;
    let mut service = out.family(
        "queue_service",
        "Time that the card took for a batch in which frames moved",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (labels, queue) in cards.iter().flat_map(Card::queues) {
        if let Some(times) = queue.times {
            histogram(&mut service, &labels, times.sum, times.buckets())?;
        }
    }
    Ok(())
}

/// A sample: what all took together, and how many took how long, which `None` says of the longest.
fn histogram(
    family: &mut MetricEncoder<'_>,
    labels: &Labels,
    sum: Duration,
    buckets: impl Iterator<Item = (Option<Duration>, u64)>,
) -> fmt::Result {
    let bound = |time: Option<Duration>| time.map_or(f64::INFINITY, |t| t.as_secs_f64());
    let buckets: Vec<_> = buckets.map(|(t, count)| (bound(t), count)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let mut sample = family.encode_family(labels)?;
    sample.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
}

fn describe_generators(out: &mut Out<'_, '_>, cards: &[Card]) -> fmt::Result {
    let each = |value: fn(&GeneratorReport) -> u64| {
        let generators = cards
            .iter()
            .filter_map(|card| Some((card, card.generator?)));
        generators.map(move |(card, report)| (card.labels(), value(&report)))
    };
    let both = |values: fn(&GeneratorReport) -> [u64; 2]| {
        let generators = cards
            .iter()
            .filter_map(|card| Some((card, card.generator?)));
        generators.flat_map(move |(card, report)| {
            // As the guest sees it.
            let directions = ["receive", "transmit"].into_iter().zip(values(&report));
            directions.map(|(direction, value)| {
                let mut labels = card.labels();
                labels.push(("direction", direction.into()));
                (labels, value)
            })
        })
    };
    out.counter(
        ("generator_frames", None),
        "Frames that the generator made, and those with a stamp that came to it",
        both(|report| [report.sent, report.received]),
    )?;
    out.counter(
        ("generator", Some(Unit::Bytes)),
        "Bytes of these frames",
        both(|report| [report.sent_bytes, report.received_bytes]),
    )?;
    out.counter(
        ("generator_lost_frames", None),
        "Frames of generators that did not come to this one, and will not",
        each(|report| report.lost),
    )?;
    out.gauge(
        ("generator_unanswered_frames", None),
        "Frames of the generator that may yet come back",
        each(|report| report.unanswered),
    )?;
    out.counter(
        ("generator_reordered_frames", None),
        "Frames that came after a later one",
        each(|report| report.reordered),
    )?;
    out.counter(
        ("generator_duplicated_frames", None),
        "Frames that came once more",
        each(|report| report.duplicated),
    )?;
    out.counter(
        ("generator_damaged_frames", None),
        "Frames that came with another payload than was sent",
        each(|report| report.damaged),
    )?;
    out.counter(
        ("generator_other_frames", None),
        "Frames that came and are none of a generator",
        each(|report| report.other),
    )?;
    let mut latency = out.family(
        "generator_latency",
        "Time from sending to arrival",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for card in cards {
        if let Some(report) = card.generator {
            let times = report.latency;
            histogram(&mut latency, &card.labels(), times.sum(), times.buckets())?;
        }
    }
    Ok(())
}

fn describe_shapes(out: &mut Out<'_, '_>, cards: &[Card]) -> fmt::Result {
    let each = |value: fn(&ShapeReport) -> u64| {
        let shapes = cards.iter().filter_map(|card| Some((card, card.shape?)));
        shapes.flat_map(move |(card, [sent, received])| {
            [("transmit", sent), ("receive", received)].map(|(direction, report)| {
                let mut labels = card.labels();
                labels.push(("direction", direction.into()));
                (labels, value(&report))
            })
        })
    };
    out.counter(
        ("shape_frames", None),
        "Frames that came to the emulated line",
        each(|report| report.frames),
    )?;
    out.counter(
        ("shape", Some(Unit::Bytes)),
        "Bytes that came to the emulated line",
        each(|report| report.bytes),
    )?;
    out.counter(
        ("shape_lost_frames", None),
        "Frames that the emulated line lost",
        each(|report| report.lost),
    )?;
    out.counter(
        ("shape_duplicated_frames", None),
        "Frames that the emulated line doubled",
        each(|report| report.duplicated),
    )?;
    out.counter(
        ("shape_reordered_frames", None),
        "Frames that the next one overtook on the emulated line",
        each(|report| report.reordered),
    )
}

fn describe_switches(out: &mut Out<'_, '_>, switches: &[SwitchReport]) -> fmt::Result {
    type Values<const N: usize> = fn(&vnet_switch::Report) -> [(&'static str, u64); N];
    fn each<'s, const N: usize>(
        switches: &'s [SwitchReport],
        key: &'static str,
        values: Values<N>,
    ) -> impl Iterator<Item = (Labels, u64)> + 's {
        let ports = switches.iter().flat_map(|switch| {
            let ports = switch.ports.iter();
            ports.map(move |(port, report)| (&switch.name, port, report))
        });
        ports.flat_map(move |(switch, port, report)| {
            values(report).map(|(value, count)| {
                let labels = vec![
                    ("switch", switch.to_string()),
                    ("port", port.clone()),
                    (key, value.into()),
                ];
                (labels, count)
            })
        })
    }
    out.gauge(
        ("switch_addresses", None),
        "MAC addresses that the switch has learned",
        switches.iter().map(|switch| {
            let labels = vec![("switch", switch.name.to_string())];
            (labels, switch.addresses as u64)
        }),
    )?;
    out.gauge(
        ("switch_multicast_groups", None),
        "Multicast groups with members, of a switch that listens to that",
        switches.iter().filter_map(|switch| {
            let labels = vec![("switch", switch.name.to_string())];
            Some((labels, switch.groups? as u64))
        }),
    )?;
    out.counter(
        ("switch_port_frames", None),
        "Frames that a port sent into the switch, or got from it",
        each(switches, "direction", |port| {
            [("in", port.frames_in), ("out", port.frames_out)]
        }),
    )?;
    out.counter(
        ("switch_port", Some(Unit::Bytes)),
        "Bytes that a port sent into the switch, or got from it",
        each(switches, "direction", |port| {
            [("in", port.bytes_in), ("out", port.bytes_out)]
        }),
    )?;
    out.counter(
        ("switch_port_dropped_frames", None),
        "Frames that a port had no room for, or that it sent and the switch did not let in",
        each(switches, "reason", |port| {
            [("full", port.full), ("refused", port.refused)]
        }),
    )
}
