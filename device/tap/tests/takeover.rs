// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A TAP whose descriptors another process takes over.

mod host;
mod namespace;

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use host::{config, datagram, host_side, open, spread, EMPTY, PARTIAL};
use namespace::{ip, run};
use vnet_backend::{mock, Endpoint};
use vnet_tap::{Config, Tap};

/// The descriptors as a process gets them that takes over.
fn kept(tap: &Tap) -> Vec<OwnedFd> {
    let owned = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    tap.descriptors().map(owned).collect()
}

/// Nobody would read what came to one before its worker detached it, and that would be lost uncounted.
#[test]
fn who_takes_over_leaves_queues_detached() {
    run("who_takes_over_leaves_queues_detached", EMPTY, || {
        let mut tap = open("tap0", 3);
        host_side();
        let kept = kept(&tap);
        let ports = tap.open(3).unwrap();
        ports[1].attachment().unwrap().set_attached(false);
        let mut tap = Tap::adopt(config("tap0", 3), kept).unwrap();
        let mut ports = tap.open(3).unwrap();
        let mut attachments: Vec<_> = ports.iter().map(|p| p.attachment().unwrap()).collect();
        let attached: Vec<_> = attachments.iter().map(|a| a.was_attached()).collect();
        assert_eq!(attached, [true, false, true]);
        let counts = spread(&mut ports);
        assert_eq!((counts[1], counts[0] + counts[2]), (0, 64), "{counts:?}");
        attachments[1].set_attached(true);
        let counts = spread(&mut ports);
        assert_eq!(counts.iter().sum::<usize>(), 64);
        assert!(counts.iter().all(|&n| n > 0), "{counts:?}");
    });
}

/// A network namespace with nobody in it but a program that sleeps.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let sleep = ["--net", "sleep", "600"];
        let child = Command::new("unshare").args(sleep).spawn().unwrap();
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
        let end = Instant::now() + Duration::from_secs(10);
        let there = child.id().to_string();
        while namespace(&there).unwrap() == namespace("self").unwrap() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }

    fn ip(&self, arguments: &str) {
        let net = format!("--net=/proc/{}/ns/net", self.0.id());
        let mut command = Command::new("nsenter");
        command.args([&net, "ip"]).args(arguments.split(' '));
        assert!(command.status().unwrap().success(), "{arguments}");
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_takes_over_goes_on_with_an_interface_whatever_has_become_of_it() {
    let name = "who_takes_over_goes_on_with_an_interface_whatever_has_become_of_it";
    run(name, EMPTY, || {
        let next = |tap: &Tap| Tap::adopt(config("tap0", 2), kept(tap)).unwrap();

        // It has another name, by which it was made.
        let first = open("tap0", 2);
        ip("link set tap0 name lan0");
        ip("link set lan0 mtu 1500 up");
        ip("link add tap0 type veth peer name veth0");
        let mut tap = next(&first);
        assert!(tap.link().up);
        let mut ports = tap.open(2).unwrap();
        assert!(mock::transmit(&mut *ports[1], &datagram(1, b"x"), PARTIAL));
        assert_eq!(ports[1].losses().sent, 0);

        // It is deleted.
        ip("link delete lan0");
        assert!(!tap.link().up);
        let mut tap = next(&first);
        assert!(!tap.link().up);
        let mut ports = tap.open(2).unwrap();
        assert!(mock::transmit(&mut *ports[1], &datagram(1, b"x"), PARTIAL));
        assert_eq!(ports[1].losses().sent, 1);
        assert!(mock::receive(&mut *ports[1], 1, 2000).is_empty());

        // It is in another namespace: up there, which is not seen here.
        ip("link delete veth0");
        let first = open("tap0", 2);
        ip("link set tap0 up");
        let elsewhere = Elsewhere::new();
        ip(&format!("link set tap0 netns {}", elsewhere.0.id()));
        assert!(!first.link().up);
        assert!(!next(&first).link().up);
        // Nor is another one taken for it that has its name.
        let _other = open("tap0", 2);
        ip("link set tap0 up");
        assert!(!next(&first).link().up);
        ip("link set tap0 down");

        // Descriptors of another one are not taken for a part of it.
        let [one, two] = ["one", "two"].map(|name| open(name, 1));
        let both = kept(&one).into_iter().chain(kept(&two)).collect();
        let error = Tap::adopt(config("one", 2), both).unwrap_err().to_string();
        assert!(error.contains("are of several interfaces"), "{error}");
    });
}

/// The path by which it was found may lead nowhere by then, or elsewhere.
#[test]
fn who_takes_over_goes_on_in_the_namespace_of_the_interface() {
    let name = "who_takes_over_goes_on_in_the_namespace_of_the_interface";
    run(name, EMPTY, || {
        let dir = std::env::temp_dir().join(format!("vnet-tap-netns-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("blue");
        let name = |there: &Elsewhere| {
            let _ = fs::remove_file(&path);
            symlink(format!("/proc/{}/ns/net", there.0.id()), &path).unwrap();
        };
        let blue = Elsewhere::new();
        name(&blue);
        let config = || Config {
            netns: Some(path.clone()),
            ..config("tap0", 1)
        };
        let first = Tap::open(config()).unwrap();
        blue.ip("link set tap0 up");
        assert!(first.link().up);
        let next = || Tap::adopt(config(), kept(&first)).map(|tap| tap.link().up);
        assert!(next().unwrap());
        // The namespace is there for as long as somebody has the descriptors.
        drop(blue);
        assert!(next().unwrap());
        let other = Elsewhere::new();
        name(&other);
        assert!(next().unwrap());
        other.ip("tuntap add tap0 mode tap");
        assert!(next().unwrap());
        fs::remove_dir_all(&dir).unwrap();
    });
}
