// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Steps in words, each with the section of the data sheet that it follows.

use std::fmt::Write;

use serde_json::{json, Map, Value};
use vnet_backend::{Checksum, GsoKind, Meta};
use vnet_card::{Came, Did, Fate, Glimpse, Held, Look, Moved, Next, Offered, Packet};
use vnet_contract::queue::Kind;
use vnet_contract::ring::{DESC_F_INDIRECT, DESC_F_NEXT};
use vnet_control::{StepName, Words};

use crate::mac::Mac;

/// Descriptors of a chain that are told of.
const MOST_LINKS: usize = 16;

/// Sections of the data sheet.
mod section {
    pub(super) const LAYOUT: &str = "docs/datasheet.md#71-layout";
    pub(super) const CHAINS: &str = "docs/datasheet.md#72-chains";
    pub(super) const NOTIFICATION: &str = "docs/datasheet.md#73-notification";
    pub(super) const TRANSMIT: &str = "docs/datasheet.md#81-transmit-rules";
    pub(super) const RECEIVE: &str = "docs/datasheet.md#82-receive-rules";
    pub(super) const DOORBELLS: &str = "docs/datasheet.md#9-doorbells";
    pub(super) const MSIX: &str = "docs/datasheet.md#101-msi-x";
    pub(super) const MODERATION: &str = "docs/datasheet.md#102-moderation";
    pub(super) const FILTERS: &str = "docs/datasheet.md#12-receive-filters";
    pub(super) const RSS: &str = "docs/datasheet.md#13-receive-side-scaling";
    pub(super) const ERRORS: &str = "docs/datasheet.md#17-error-reporting";
    pub(super) const ORDER: &str = "docs/datasheet.md#19-ordering-and-memory";

    #[cfg(test)]
    pub(super) const ALL: [&str; 12] = [
        LAYOUT,
        CHAINS,
        NOTIFICATION,
        TRANSMIT,
        RECEIVE,
        DOORBELLS,
        MSIX,
        MODERATION,
        FILTERS,
        RSS,
        ERRORS,
        ORDER,
    ];
}

fn words(step: StepName, section: &str, text: String, values: Value) -> Words {
    let values = match values {
        Value::Object(values) => values,
        _ => Map::new(),
    };
    Words {
        step,
        text,
        section: section.into(),
        values,
    }
}

/// What a step did with a queue of this kind; `net` is what the card is connected to.
pub(crate) fn did(did: &Did, kind: Kind, net: &str) -> Words {
    match did {
        Did::Fetched(look) => fetched(look),
        Did::ReadPacket(packet) => read_packet(packet),
        Did::ReadBuffer(held) => read_buffer(held),
        Did::HandedOver(offered) => handed_over(offered, net),
        Did::Received(came) => received(came, net),
        Did::Used(moved) => used(moved),
        Did::Decided { wish, due, wait } => {
            let (event, old, new) = (wish.event, wish.old, wish.new);
            let mut values = json!({"event": event, "old": old, "new": new, "due": due});
            let compared =
                format!("used_event is {event}, and the used index went from {old} to {new}");
            let (section, text) = match (due, wait) {
                (false, _) => {
                    let text = format!("{compared}, not past it: the driver wants no interrupt");
                    (section::NOTIFICATION, text)
                }
                (true, None) => {
                    let text = format!("{compared}, past it: the driver wants an interrupt");
                    (section::NOTIFICATION, text)
                }
                (true, Some(wait)) => {
                    values["wait-us"] = (wait.as_micros() as u64).into();
                    let text = format!(
                        "{compared}, past it: an interrupt is due, and waits {} us for company",
                        wait.as_micros()
                    );
                    (section::MODERATION, text)
                }
            };
            words(StepName::Decide, section, text, values)
        }
        Did::Signalled { vector } => {
            let text = match vector {
                true => format!(
                    "the {} queue raised the interrupt of its vector",
                    word(kind)
                ),
                false => "the driver gave the queue no vector: no interrupt".into(),
            };
            let values = json!({"interrupts": u8::from(*vector)});
            words(StepName::Signal, section::MSIX, text, values)
        }
        Did::Failed(fault) => {
            let name = fault.error.name();
            let text = format!("the driver broke a rule, {name}: {fault}; the queue has stopped");
            let values = json!({"error": name, "info": fault.info});
            words(StepName::Stop, section::ERRORS, text, values)
        }
    }
}

/// What the next step will do.
pub(crate) fn next(next: Next, kind: Kind, net: &str) -> Words {
    let none = || json!({});
    match next {
        Next::Fetch => {
            let text = "fetch: look for the next entry of the avail ring".into();
            words(StepName::Fetch, section::LAYOUT, text, none())
        }
        Next::Read { head } => {
            let text = format!("read: follow the chain from descriptor {head}");
            words(StepName::Read, section::CHAINS, text, json!({"head": head}))
        }
        Next::Hand { bytes } => {
            let values = json!({"bytes": bytes});
            let (section, text) = match kind {
                Kind::Tx => {
                    let text = format!("hand: give the frame of {bytes} bytes to {net}");
                    (section::TRANSMIT, text)
                }
                Kind::Rx => {
                    let text =
                        format!("hand: have {net} write a frame into {bytes} bytes of buffers");
                    (section::RECEIVE, text)
                }
            };
            words(StepName::Hand, section, text, values)
        }
        Next::Use { entries } => {
            let text = match entries {
                1 => "use: write the used entry, then the used index".into(),
                n => format!("use: write {n} used entries, then the used index"),
            };
            words(
                StepName::Use,
                section::ORDER,
                text,
                json!({"entries": entries}),
            )
        }
        Next::Decide => {
            let text = "decide: compare the used index with used_event".into();
            words(StepName::Decide, section::NOTIFICATION, text, none())
        }
        Next::Signal => {
            let text = "signal: raise the interrupt".into();
            words(StepName::Signal, section::MSIX, text, none())
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Rx => "receive",
        Kind::Tx => "transmit",
    }
}

fn fetched(look: &Look) -> Words {
    match *look {
        Look::Chain {
            index,
            entry,
            head,
            avail,
        } => {
            let waiting = avail.wrapping_sub(index);
            let text = format!(
                "avail index {avail}, next to fetch {index}: {waiting} to do; entry {entry} of the \
                 avail ring says that the chain begins at descriptor {head}"
            );
            let values = json!({"avail": avail, "index": index, "entry": entry, "head": head});
            words(StepName::Fetch, section::LAYOUT, text, values)
        }
        Look::Nothing { avail, event } => {
            let text = format!(
                "avail index {avail}, next to fetch {avail}: nothing to do; avail_event is now \
                 {event}, so the driver rings for the next one"
            );
            let values = json!({"avail": avail, "index": avail, "avail-event": event});
            words(StepName::Fetch, section::DOORBELLS, text, values)
        }
    }
}

/// The descriptors of a chain, as text and as values.
fn links(held: &Held) -> (String, Value) {
    let mut text = String::new();
    let mut list = Vec::new();
    for link in held.links.iter().take(MOST_LINKS) {
        let desc = link.desc;
        let place = if link.in_table { "table " } else { "" };
        let what = match desc.flags & DESC_F_INDIRECT {
            0 => "",
            _ => " of table",
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "; {place}{}: {} bytes{what} at {:#x}",
            link.index, desc.len, desc.addr
        );
        if desc.flags & DESC_F_NEXT != 0 {
            let _ = write!(text, ", next {}", desc.next);
        }
        list.push(json!({
            "index": link.index,
            "in-table": link.in_table,
            "addr": format!("{:#x}", desc.addr),
            "len": desc.len,
            "flags": desc.flags,
            "next": desc.next,
        }));
    }
    if held.links.len() > MOST_LINKS {
        let _ = write!(text, "; and {} more", held.links.len() - MOST_LINKS);
    }
    (text, list.into())
}

fn count(held: &Held) -> String {
    match held.links.len() {
        1 => "1 descriptor".into(),
        n => format!("{n} descriptors"),
    }
}

fn read_packet(packet: &Packet) -> Words {
    let (list, descriptors) = links(&packet.chain);
    let header = packet.chain.bytes - packet.len;
    let (head, len) = (packet.chain.head, packet.len);
    let text = format!(
        "chain of {} from {head}{list}; a header of {header} bytes ({}), then a frame of {len} bytes",
        count(&packet.chain),
        metadata(&packet.meta)
    );
    let values = json!({
        "head": head,
        "descriptors": descriptors,
        "header-bytes": header,
        "frame-bytes": len,
        "offload": metadata(&packet.meta),
    });
    words(StepName::Read, section::CHAINS, text, values)
}

fn read_buffer(held: &Held) -> Words {
    let (list, descriptors) = links(held);
    let (head, bytes) = (held.head, held.bytes);
    let text = format!(
        "chain of {} from {head}{list}; {bytes} bytes for the card to write",
        count(held)
    );
    let values = json!({"head": head, "descriptors": descriptors, "bytes": bytes});
    words(StepName::Read, section::CHAINS, text, values)
}

/// What a header asks for.
fn metadata(meta: &Meta) -> String {
    let checksum = match meta.checksum {
        Checksum::Unverified => "no checksum to do".into(),
        Checksum::Valid => "checksum known to be right".into(),
        Checksum::Partial { start, offset } => {
            format!(
                "checksum from byte {start} on, to byte {}",
                start.saturating_add(offset)
            )
        }
    };
    match meta.gso {
        None => checksum,
        Some(gso) => {
            let kind = match gso.kind {
                GsoKind::TcpV4 => "TCP over IPv4",
                GsoKind::TcpV6 => "TCP over IPv6",
                GsoKind::Udp => "UDP",
            };
            format!("{checksum}, {kind} to be cut every {} bytes", gso.size)
        }
    }
}

/// A frame in a few words.
fn frame(frame: &Glimpse) -> String {
    let (len, start) = (frame.len, &frame.start);
    let Some((header, _)) = start.split_first_chunk::<14>() else {
        return format!("{len} bytes");
    };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    let to = Mac([d0, d1, d2, d3, d4, d5]);
    let from = Mac([s0, s1, s2, s3, s4, s5]);
    let kind = match u16::from_be_bytes([t0, t1]) {
        0x0800 => "IPv4".into(),
        0x0806 => "ARP".into(),
        0x86dd => "IPv6".into(),
        0x8100 | 0x88a8 => "VLAN".into(),
        other => format!("type {other:#06x}"),
    };
    format!("{len} bytes of {kind} from {from} to {to}")
}

fn frame_values(frame: Option<&Glimpse>) -> Value {
    let Some(frame) = frame else {
        return json!({});
    };
    let mut hex = String::new();
    for byte in &frame.start {
        let _ = write!(hex, "{byte:02x}");
    }
    json!({"frame-bytes": frame.len, "frame-start": hex})
}

fn handed_over(offered: &Offered, net: &str) -> Words {
    let what = frame(&offered.frame);
    let outcome = &offered.outcome;
    let (result, text) = if outcome.frames > 0 {
        ("taken", format!("{what} went to {net}"))
    } else if outcome.drops > 0 {
        let text = format!(
            "{what}: dropped, as they are not what their header says, or nobody takes them"
        );
        ("dropped", text)
    } else {
        (
            "waits",
            format!("{what}: {net} takes no more now, so they stay in hand"),
        )
    };
    let mut values = frame_values(Some(&offered.frame));
    values["result"] = result.into();
    words(StepName::Hand, section::TRANSMIT, text, values)
}

fn received(came: &Came, net: &str) -> Words {
    let what = came.frame.as_ref().map_or_else(|| "a frame".into(), frame);
    let (result, section, text) = match came.fate {
        Fate::None => {
            let text = format!("{net} has no frame; the buffers stay in hand");
            ("none", section::RECEIVE, text)
        }
        Fate::Delivered => {
            let buffers = match came.entries.len() {
                1 => "the buffer".into(),
                n => format!("{n} buffers"),
            };
            let text = format!("{what} came from {net}; they are in {buffers}, behind the header");
            ("delivered", section::RECEIVE, text)
        }
        Fate::Waits { wanted, room } => {
            let text = format!(
                "{net} has a frame that may need {wanted} bytes, and {room} are in hand: one more \
                 chain is needed"
            );
            ("waits", section::RECEIVE, text)
        }
        Fate::Elsewhere => {
            let text = format!("{what}: they belong to another queue, and went there");
            ("elsewhere", section::RSS, text)
        }
        Fate::TooLong => {
            let text = format!("{what} do not fit the buffers: dropped; the buffers stay in hand");
            ("dropped", section::RECEIVE, text)
        }
        Fate::Unwanted => {
            let text =
                format!("{what}: the driver does not want them: dropped; the buffers stay in hand");
            ("dropped", section::FILTERS, text)
        }
    };
    let mut values = frame_values(came.frame.as_ref());
    values["result"] = result.into();
    if let Fate::Waits { wanted, room } = came.fate {
        values["wanted"] = wanted.into();
        values["room"] = room.into();
    }
    words(StepName::Hand, section, text, values)
}

fn used(moved: &Moved) -> Words {
    let (old, new) = (moved.old, moved.new);
    let mut text = String::new();
    let mut list = Vec::new();
    for (n, &(entry, id, len)) in moved.entries.iter().enumerate() {
        if n < MOST_LINKS {
            let _ = write!(text, "entry {entry} of the used ring: id {id}, len {len}; ");
            list.push(json!({"entry": entry, "id": id, "len": len}));
        }
    }
    let _ = write!(text, "used index {old} became {new}: the driver sees it");
    let values = json!({"entries": list, "old": old, "new": new});
    words(StepName::Use, section::ORDER, text, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use vnet_card::Fault;
    use vnet_contract::queue::Error;

    use crate::sheet::anchor;

    #[test]
    fn every_section_is_in_the_data_sheet() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for section in section::ALL {
            let (file, heading) = section.split_once('#').unwrap();
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let headings = text.lines().filter(|line| line.starts_with('#'));
            assert!(headings.map(anchor).any(|a| a == heading), "{section}");
        }
    }

    #[test]
    fn what_was_done_is_told_with_its_numbers() {
        let look = Look::Chain {
            index: 0xffff,
            entry: 63,
            head: 5,
            avail: 1,
        };
        let told = did(&Did::Fetched(look), Kind::Tx, "null");
        assert!(told.text.contains(": 2 to do; entry 63"), "{}", told.text);
        assert_eq!(
            (told.step, &told.values["head"]),
            (StepName::Fetch, &5.into())
        );

        let moved = Moved {
            entries: vec![(63, 5, 0)],
            old: 0xffff,
            new: 0,
        };
        let told = did(&Did::Used(moved), Kind::Tx, "null");
        assert_eq!(
            told.text,
            "entry 63 of the used ring: id 5, len 0; used index 65535 became 0: the driver sees it"
        );

        let fault = Fault::new(Error::DescIndex, 99u32);
        let told = did(&Did::Failed(fault), Kind::Rx, "null");
        assert_eq!(told.values["error"], Error::DescIndex.name());
        assert!(told.text.contains("descriptor index 99"), "{}", told.text);
    }

    #[test]
    fn a_frame_is_told_by_its_header() {
        let mut start = vec![0xff; 6];
        start.extend([2, 0, 0, 0, 0, 1, 8, 6]);
        let told = frame(&Glimpse { len: 42, start });
        assert_eq!(
            told,
            "42 bytes of ARP from 02:00:00:00:00:01 to ff:ff:ff:ff:ff:ff"
        );
        let short = Glimpse {
            len: 3,
            start: vec![1, 2, 3],
        };
        assert_eq!(frame(&short), "3 bytes");
    }
}
