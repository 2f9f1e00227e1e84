// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What passes is in the files, of which the last ones are there.

use std::collections::VecDeque;
use std::fs::{read_dir, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcap_parser::{
    create_reader, Block, EnhancedPacketBlock, OptionCode, PcapBlockOwned, PcapError,
};
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
    Recorded::new(Box::new(Wire), config, "nic0", false)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.collect();
    files.sort();
    files
}

/// The packets of a file. `None`: it ends within a block.
fn whole<T>(path: &Path, of: impl Fn(&EnhancedPacketBlock<'_>) -> T) -> Option<Vec<T>> {
    // One that has just been made has no header yet.
    let mut reader = create_reader(1 << 20, File::open(path).unwrap()).ok()?;
    let mut all = Vec::new();
    loop {
        match reader.next() {
            Ok((len, PcapBlockOwned::NG(block))) => {
                if let Block::EnhancedPacket(packet) = block {
                    all.push(of(&packet));
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => return Some(all),
            Err(PcapError::UnexpectedEof) => return None,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            other => panic!("{path:?}: {:?}", other.map(|_| ())),
        }
    }
}

fn blocks<T>(path: &Path, of: impl Fn(&EnhancedPacketBlock<'_>) -> T) -> Vec<T> {
    whole(path, of).unwrap_or_else(|| panic!("{path:?} ends within a block"))
}

/// Waits for what the writer does.
fn eventually(f: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !f() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the newest file has so many frames, or ends with this one: from the end of its record on the writer has
/// half a second, which may be too little on a machine where others are busy.
fn settle(directory: &Path, count: usize, last: &[u8]) {
    eventually(|| {
        let newest = files(directory).pop();
        let frames = newest.and_then(|path| whole(&path, bytes));
        frames.is_some_and(|all| all.len() >= count && all.last().is_some_and(|f| f == last))
    });
}

fn bytes(packet: &EnhancedPacketBlock<'_>) -> Vec<u8> {
    packet.data[..packet.caplen as usize].to_vec()
}

/// The frames of a file, with their interfaces.
fn frames(path: &Path) -> Vec<(u32, Vec<u8>)> {
    blocks(path, |packet| (packet.if_id, bytes(packet)))
}

/// The same, with the id and with how many before it are not there.
fn packets(path: &Path) -> Vec<(u64, u32, Vec<u8>)> {
    blocks(path, |packet| {
        let number = |code: OptionCode| {
            let option = packet.options.iter().find(|o| o.code == code);
            option.map_or(0, |o| {
                let mut value = [0; 8];
                value.copy_from_slice(&o.value[..8]);
                u64::from_le_bytes(value)
            })
        };
        let dropped = number(OptionCode(4)) as u32;
        (number(OptionCode(5)), dropped, bytes(packet))
    })
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
    settle(directory.path(), 100, &frame(49));
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
    settle(directory.path(), 1, &[255; 1000]);
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

/// As of a card that could not be made after all: what there is of earlier runs stays.
#[test]
fn a_record_without_frames_leaves_no_file_and_removes_none() {
    let directory = tempfile::tempdir().unwrap();
    let run = |frames: u8| {
        let mut endpoint = open(",files=2", directory.path());
        let mut queues = endpoint.open(1).unwrap();
        let before = files(directory.path()).pop();
        for n in 0..frames {
            assert!(mock::transmit(
                queues[0].as_mut(),
                &[n; 60],
                Meta::default()
            ));
        }
        eventually(|| frames == 0 || files(directory.path()).pop() != before);
    };
    [1, 1, 0, 0].into_iter().for_each(run);
    let written = files(directory.path());
    let names: Vec<_> = written
        .iter()
        .map(|path| path.file_name().unwrap())
        .collect();
    assert_eq!(names, ["a-000000.pcapng", "a-000001.pcapng"]);
    run(1);
    assert!(files(directory.path())[1].ends_with("a-000002.pcapng"));
}

#[test]
fn a_record_that_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let none = directory.path().join("none");
    for (options, place, why) in [
        ("", none.as_path(), "No such file"),
        (",queue=tx1", directory.path(), "there is no tx1"),
    ] {
        let Err(error) = open(options, place).open(1) else {
            panic!("there is one");
        };
        let text = error.to_string();
        assert!(text.starts_with("record ") && text.contains(why), "{text}");
    }
    // A card that was there before is not lost with the directory.
    let config = format!("file={}/a.pcapng", none.display());
    let mut endpoint = Recorded::new(Box::new(Wire), config.parse().unwrap(), "nic0", true);
    let mut queues = endpoint.open(1).unwrap();
    let queue = queues[0].as_mut();
    assert!(mock::transmit(queue, &[0; 60], Meta::default()));
    let back = mock::receive(queue, 2, 2000);
    assert_eq!(back, [(vec![0; 60], Meta::default())]);
}

/// As when the disk is full, and then is not: capture.sh has a real one.
#[test]
fn while_nothing_can_be_written_traffic_goes_on_and_later_the_files_do() {
    // A writer that has to wait for its turn does not notice one that is short.
    let outages = [300, 2_000, 10_000].map(Duration::from_millis);
    assert!(outages.into_iter().any(|time| missing_after(time) > 100));
}

/// How many frames are missing if the next file has no place for so long.
fn missing_after(outage: Duration) -> u32 {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let mut endpoint = open(",size=64K,files=30,queue=tx", &place);
    let mut queues = endpoint.open(1).unwrap();
    let mut number = 0u32;
    let mut exchange = || {
        let queue = queues[0].as_mut();
        let mut frame = vec![0; 1000];
        frame[..4].copy_from_slice(&number.to_be_bytes());
        number += 1;
        assert!(mock::transmit(queue, &frame, Meta::default()));
        let back = mock::receive(queue, 2, 2000);
        assert_eq!(back, [(frame, Meta::default())]);
    };
    exchange();
    std::fs::rename(&place, &elsewhere).unwrap();
    (0..256).for_each(|_| exchange());
    std::thread::sleep(outage);
    std::fs::rename(&elsewhere, &place).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while files(&place).len() < 2 {
        assert!(Instant::now() < end);
        exchange();
        std::thread::sleep(Duration::from_millis(20));
    }
    exchange();
    let mut last = vec![0; 1000];
    last[..4].copy_from_slice(&(number - 1).to_be_bytes());
    settle(&place, 1, &last);
    drop((queues, endpoint));
    let files = files(&place);
    let (mut before, mut missing) = (None, 0);
    for (id, dropped, bytes) in files.iter().flat_map(|path| packets(path)) {
        let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        // Each says how many before it are not there.
        assert_eq!(number, before.map_or(0, |n: u32| n + 1) + dropped);
        assert_eq!(id & 0xffff_ffff, u64::from(number) + 1);
        missing += dropped;
        before = Some(number);
    }
    assert_eq!(before, Some(number - 1));
    missing
}
