// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What passes is in the files, of which the last ones are there.

use std::collections::VecDeque;
use std::fs::{read_dir, File};
use std::path::{Path, PathBuf};

use pcap_parser::{create_reader, Block, PcapBlockOwned, PcapError};
use vnet_backend::{mock, Capabilities, Endpoint, Error, Frame, Meta, Offloads, Queue, RxRing};
use vnet_record::{Config, Recorded};

/// Gives back what it gets.
struct Echo(VecDeque<Vec<u8>>);

impl Queue for Echo {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for frame in batch {
            let mut bytes = vec![0; frame.len];
            frame.read(&mut bytes);
            self.0.push_back(bytes);
        }
        batch.len()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some(frame) = self.0.front() {
            let Some(room) = ring.room(frame.len()) else {
                return;
            };
            let len = room.write(frame);
            ring.commit(len, Meta::default());
            self.0.pop_front();
        }
    }
}

struct Wire;

impl Endpoint for Wire {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: 1,
            max_mtu: 9000,
        }
    }

    fn open(&mut self, _: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok(vec![Box::new(Echo(VecDeque::new()))])
    }

    fn set_offloads(&mut self, _: Offloads) {}
}

fn open(options: &str, directory: &Path) -> Recorded {
    let text = format!("file={}/a.pcapng{options}", directory.display());
    let config: Config = text.parse().unwrap();
    Recorded::new(Box::new(Wire), config, "nic0")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.collect();
    files.sort();
    files
}

/// The frames of a file, with their interfaces.
fn frames(path: &Path) -> Vec<(u32, Vec<u8>)> {
    let mut reader = create_reader(1 << 20, File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    loop {
        match reader.next() {
            Ok((len, PcapBlockOwned::NG(block))) => {
                if let Block::EnhancedPacket(packet) = block {
                    let bytes = packet.data[..packet.caplen as usize].to_vec();
                    frames.push((packet.if_id, bytes));
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => return frames,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            other => panic!("{path:?}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn both_directions_are_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let mut endpoint = open("", directory.path());
    let mut queues = endpoint.open(1).unwrap();
    let frame = |n: u8| vec![n; 60 + usize::from(n)];
    for n in 0..50 {
        assert!(mock::transmit(
            queues[0].as_mut(),
            &frame(n),
            Meta::default()
        ));
        let back = mock::receive(queues[0].as_mut(), 2, 2000);
        assert_eq!(back, [(frame(n), Meta::default())]);
    }
    drop((queues, endpoint));
    let written = frames(&files(directory.path())[0]);
    for (interface, count) in [(0, 50), (1, 50)] {
        let all = written.iter().filter(|(i, _)| *i == interface);
        let due = (0..count).map(frame);
        assert!(all.map(|(_, bytes)| bytes.clone()).eq(due));
    }
}

#[test]
fn files_are_of_a_size_and_the_last_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut endpoint = open(",size=64K,files=3,queue=tx", directory.path());
    let mut queues = endpoint.open(1).unwrap();
    for n in 0..=255 {
        assert!(mock::transmit(
            queues[0].as_mut(),
            &[n; 1000],
            Meta::default()
        ));
        mock::receive(queues[0].as_mut(), 2, 2000);
    }
    drop((queues, endpoint));
    let files = files(directory.path());
    assert_eq!(files.len(), 3);
    let mut next = None;
    for file in &files {
        let size = file.metadata().unwrap().len();
        assert!(size < 64 * 1024 + 4096, "{size}");
        for (_, bytes) in frames(file) {
            assert_eq!(bytes, vec![bytes[0]; 1000]);
            assert!(next.is_none_or(|next| next == bytes[0]));
            next = Some(bytes[0].wrapping_add(1));
        }
    }
    // None between the files is missing, and the last is the last.
    assert_eq!(next, Some(0));
}

#[test]
fn where_nothing_can_be_written_there_is_no_card() {
    let directory = tempfile::tempdir().unwrap();
    let mut endpoint = open("", &directory.path().join("none"));
    let Err(error) = endpoint.open(1) else {
        panic!("there is one");
    };
    let text = error.to_string();
    assert!(
        text.starts_with("record ") && text.contains("No such file"),
        "{text}"
    );
}

/// As when the disk is full, which tests have none of.
#[test]
fn when_no_more_can_be_written_traffic_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let mut endpoint = open(",size=64K,files=3", &place);
    let mut queues = endpoint.open(1).unwrap();
    let mut exchange = |n| {
        let queue = queues[0].as_mut();
        assert!(mock::transmit(queue, &[n; 1000], Meta::default()));
        let back = mock::receive(queue, 2, 2000);
        assert_eq!(back, [(vec![n; 1000], Meta::default())]);
    };
    exchange(0);
    // The next file has no place.
    std::fs::rename(&place, directory.path().join("elsewhere")).unwrap();
    for n in 0..=255 {
        exchange(n);
    }
    drop((queues, endpoint));
    assert!(!place.exists());
    // What there was room for can be read.
    let written = files(&directory.path().join("elsewhere"));
    assert_eq!(written.len(), 1);
    assert!(frames(&written[0]).len() >= 2);
}
