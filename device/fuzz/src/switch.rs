// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A switch whose ports send anything.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use vnet_backend::{mock, Endpoint, Meta, Offloads, Queue};
use vnet_switch::vlan::VidSet;
use vnet_switch::{Config, Mirror, Port, Switch, Vlans};

use crate::input::{bytes, index, rarely};
use crate::segment::is_carried;
use crate::{frames, multicast};

/// Most ports at a time.
const PORTS: usize = 5;
/// The number of the VLAN in a tag.
const VID: u16 = 0xfff;

struct Joined {
    port: Port,
    queue: Box<dyn Queue>,
    untagged: Option<u16>,
    tagged: Vec<u16>,
    mirror: bool,
    takes: Offloads,
}

/// Ports come and go, and send frames of all protocols with any metadata, messages about multicast
/// groups, and bytes. What comes out has to be the frame that was sent, once, in a VLAN of that port, and never comes out
/// where it came in.
pub fn switch(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let switch = Switch::new();
    let mut ports = vec![join(&switch, u)?];
    while !u.is_empty() {
        match u.int_in_range(0..=9)? {
            0 if ports.len() < PORTS => ports.push(join(&switch, u)?),
            1 if ports.len() > 1 => drop(ports.swap_remove(index(u, ports.len())?)),
            2 => {
                let at = index(u, ports.len())?;
                let takes = offloads(u)?;
                ports[at].port.set_offloads(takes);
                ports[at].takes = takes;
            }
            3 => {
                let at = index(u, ports.len())?;
                ports[at].queue.reset();
            }
            4 => {
                let at = index(u, ports.len())?;
                let attached = u.arbitrary()?;
                let attachment = ports[at].queue.attachment();
                attachment
                    .into_iter()
                    .for_each(|mut a| a.set_attached(attached));
            }
            _ => send(&mut ports, u)?,
        }
        let reports = switch.report();
        assert_eq!(reports.len(), ports.len());
    }
    Ok(())
}

fn join(switch: &Arc<Switch>, u: &mut Unstructured<'_>) -> Result<Joined> {
    let untagged = u.arbitrary::<Option<u8>>()?.map(|v| 1 + u16::from(v % 3));
    let mut tagged: Vec<u16> = (1..=3).filter(|_| u.arbitrary().unwrap_or(false)).collect();
    let text: Vec<_> = tagged.iter().map(u16::to_string).collect();
    let set: VidSet = text.join("+").parse().unwrap_or_default();
    tagged.retain(|vid| Some(*vid) != untagged);
    let mirror = rarely(u, 6)?;
    let config = Config {
        vlans: Vlans::new(untagged, &set),
        mirror: mirror.then_some(Mirror::All),
        snooping: rarely(u, 3)?,
        all_multicast: rarely(u, 8)?,
        ..Config::default()
    };
    let mut port = switch.join(config).expect("has no name");
    let queue = port.open(1).expect("eventfds").remove(0);
    let takes = offloads(u)?;
    port.set_offloads(takes);
    Ok(Joined {
        takes,
        port,
        queue,
        untagged,
        tagged,
        mirror,
    })
}

fn offloads(u: &mut Unstructured<'_>) -> Result<Offloads> {
    let [checksum, tso4, tso6, ecn, uso] = u.arbitrary()?;
    Ok(Offloads {
        checksum,
        tso4,
        tso6,
        ecn,
        uso,
    })
}

fn send(ports: &mut [Joined], u: &mut Unstructured<'_>) -> Result<()> {
    let at = index(u, ports.len())?;
    let (frame, meta) = match u.int_in_range(0..=7)? {
        0 | 1 => (bytes(u, 200)?.to_vec(), Default::default()),
        2..=4 => (multicast::frame(u)?, Default::default()),
        _ => frames::frame(u)?,
    };
    if frame.len() < 14 {
        return Ok(());
    }
    assert!(mock::transmit(ports[at].queue.as_mut(), &frame, meta));
    let tci = match frame[12..] {
        [0x81, 0, a, b, ..] if frame.len() >= 18 => Some(u16::from_be_bytes([a, b])),
        _ => None,
    };
    let sender = &ports[at];
    let vid = match tci.map(|tci| tci & VID).filter(|vid| *vid != 0) {
        None => sender.untagged,
        Some(vid) if Some(vid) == sender.untagged || sender.tagged.contains(&vid) => Some(vid),
        Some(_) => None,
    };
    let silent = sender.mirror;
    for (n, port) in ports.iter_mut().enumerate() {
        let got = mock::receive(port.queue.as_mut(), 10_000, 70_000);
        if n == at || silent {
            assert!(got.is_empty(), "came back, or from one that only looks");
        }
        if got.is_empty() {
            continue;
        }
        let tag = match port.mirror {
            true => tci,
            false => {
                let vid = vid.expect("of no VLAN, and yet let in");
                let bare = port.untagged == Some(vid);
                assert!(bare || port.tagged.contains(&vid), "of another VLAN");
                (!bare).then_some(tci.unwrap_or(0) & !VID | vid)
            }
        };
        let (whole, meta) = retagged(&frame, meta, tci.is_some(), tag);
        // Of many segments there may be no place for the last.
        is_carried(&whole, &meta, port.takes, &got);
        if port.takes.cover(&meta) {
            assert_eq!(got[0].1, meta);
        }
    }
    Ok(())
}

/// The frame with this tag, or none, in place of the one that it has or not.
fn retagged(frame: &[u8], meta: Meta, tagged: bool, tag: Option<u16>) -> (Vec<u8>, Meta) {
    let (before, after) = (4 * usize::from(tagged), 4 * usize::from(tag.is_some()));
    let tag = tag.map(|tci| [&[0x81, 0], &tci.to_be_bytes()[..]].concat());
    let addresses = &frame[..12];
    let bytes = [addresses, &tag.unwrap_or_default(), &frame[12 + before..]].concat();
    (bytes, meta.moved(14 + before, 14 + after))
}
