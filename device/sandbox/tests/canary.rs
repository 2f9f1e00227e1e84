// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A canary: tries in a sandbox what must not be possible there, and what must be. Limits are those of a
//! thread, so each try has threads of its own.
#![allow(missing_docs)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libc::c_long;
use rustix::thread::{capabilities, CapabilitySet};
use tempfile::TempDir;
use vnet_sandbox::{connect, serve, Error, Process};

/// What is there before the limits are.
struct World {
    dir: TempDir,
    outside: TempDir,
    port: TcpListener,
    socket: UnixListener,
    parent: c_long,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        for place in [&dir, &outside] {
            fs::write(place.path().join("file"), "content").unwrap();
        }
        let parent = rustix::process::getppid().unwrap();
        Self {
            port: TcpListener::bind("127.0.0.1:0").unwrap(),
            socket: UnixListener::bind(dir.path().join("socket")).unwrap(),
            dir,
            outside,
            parent: parent.as_raw_nonzero().get().into(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.port.local_addr().unwrap()
    }

    fn process(&self) -> Process {
        Process {
            writable: vec![self.dir.path().to_owned()],
            ..Process::default()
        }
    }
}

/// Says that something is not tried, past those who catch what a test prints.
fn skip(why: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "skip the canary: {why}");
}

/// Whether the kernel says that it has all that it takes, whatever the report says: a Landlock that limits
/// devices (version 5), and filters of system calls, of which it finds none at address 0.
fn can_limit() -> bool {
    let (version, filter) = (1, libc::SECCOMP_SET_MODE_FILTER.into());
    let landlock = call(libc::SYS_landlock_create_ruleset, [0, 0, version]);
    let seccomp = call(libc::SYS_seccomp, [filter, 0, 0]);
    landlock.is_ok_and(|version| version >= 5)
        && seccomp.is_err_and(|e| e.raw_os_error() == Some(libc::EFAULT))
}

/// Runs this in a thread that is limited as a process is, if that can be here.
fn as_process(process: &Process, canary: impl FnOnce() + Send) {
    let possible = can_limit();
    let limited = || {
        let report = process.enter();
        if report.missing.is_empty() && !report.partly {
            return canary();
        }
        assert!(!possible, "the kernel can do all of it: {report:?}");
        match report.missing.first() {
            Some(why) => skip(why),
            None => skip(&"this kernel's Landlock is older than 6.10"),
        }
    };
    thread::scope(|scope| scope.spawn(limited).join().expect("the canary lives"));
}

fn errno<T>(what: &str, result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("{what} was possible"),
        Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("{what}: {e}")),
    }
}

fn refused<T>(what: &str, result: io::Result<T>) {
    let errno = errno(what, result);
    assert!(
        [libc::EPERM, libc::EACCES].contains(&errno),
        "{what}: {errno}"
    );
}

/// A system call without pointers.
fn call(number: c_long, [a, b, c]: [c_long; 3]) -> io::Result<c_long> {
    // SAFETY: none of those that are tried here changes anything with these arguments where it is
    // possible: a null pointer, a process, a descriptor or flags that there are none of, or a signal 0.
    match unsafe { libc::syscall(number, a, b, c, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// What no thread may do.
fn forbidden(world: &World) {
    let executable = (libc::PROT_READ | libc::PROT_EXEC).into();
    let terminal = libc::TIOCSTI as c_long;
    let (inet, stream) = (libc::AF_INET.into(), libc::SOCK_STREAM.into());
    let none = [0, 0, 0];
    for (what, number, arguments) in [
        ("execve", libc::SYS_execve, none),
        ("execveat", libc::SYS_execveat, [-1, 0, 0]),
        (
            "a process",
            libc::SYS_clone,
            [libc::CLONE_SIGHAND.into(), 0, 0],
        ),
        (
            "ptrace",
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH.into(), -1, 0],
        ),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            [world.parent, 0, 0],
        ),
        ("kill", libc::SYS_kill, [world.parent, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [world.parent, world.parent, 0]),
        (
            "limits of others",
            libc::SYS_prlimit64,
            [world.parent, 0, 0],
        ),
        ("mount", libc::SYS_mount, none),
        ("unshare", libc::SYS_unshare, none),
        ("chroot", libc::SYS_chroot, none),
        ("bpf", libc::SYS_bpf, none),
        ("io_uring", libc::SYS_io_uring_setup, none),
        ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, none),
        ("init_module", libc::SYS_init_module, none),
        ("keyctl", libc::SYS_keyctl, [-1, 0, 0]),
        ("setuid", libc::SYS_setuid, [-1, 0, 0]),
        ("a terminal's input", libc::SYS_ioctl, [-1, terminal, 0]),
        ("memory for code", libc::SYS_mmap, [0, 4096, executable]),
        ("code in memory", libc::SYS_mprotect, [0, 0, executable]),
        (
            "a netlink socket",
            libc::SYS_socket,
            [libc::AF_NETLINK.into(), stream, 0],
        ),
        (
            "a socket of MPTCP",
            libc::SYS_socket,
            [inet, stream, libc::IPPROTO_MPTCP.into()],
        ),
    ] {
        assert_eq!(errno(what, call(number, arguments)), libc::EPERM, "{what}");
    }
    // As on a system that does not know them, so that a C library does without.
    for (what, number) in [("clone3", libc::SYS_clone3), ("a newer one", 4000)] {
        assert_eq!(errno(what, call(number, none)), libc::ENOSYS, "{what}");
    }
    refused("a program", Command::new("/bin/true").status());
    refused("connect", TcpStream::connect(world.address()));
    refused("listen", TcpListener::bind("127.0.0.1:0"));
    refused(
        "open outside",
        File::open(world.outside.path().join("file")),
    );
    refused("open /etc/passwd", File::open("/etc/passwd"));
    refused(
        "create outside",
        File::create(world.outside.path().join("new")),
    );
    // Threads have the same limits.
    let other = thread::spawn(|| refused("a program", Command::new("/bin/true").status()));
    other.join().unwrap();
}

#[test]
fn a_process_can_do_what_it_needs_and_nothing_else() {
    let world = World::new();
    as_process(&world.process(), || {
        forbidden(&world);
        let inside = world.dir.path();
        fs::write(inside.join("new"), "content").unwrap();
        fs::remove_file(inside.join("new")).unwrap();
        let listener = UnixListener::bind(inside.join("other")).unwrap();
        UnixStream::connect(inside.join("other")).unwrap();
        drop(listener);
        UdpSocket::bind("127.0.0.1:0").unwrap();
        fs::read("/proc/thread-self/net/dev").unwrap();
        refused("open what is another's", File::open("/proc/1/net/dev"));
        let all = capabilities(None).unwrap();
        let few = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::DAC_OVERRIDE;
        assert!(few.contains(all.permitted), "{:?}", all.permitted);
    });
}

#[test]
fn who_serves_can_use_what_there_is_and_nothing_else() {
    let world = World::new();
    let file = world.dir.path().join("file");
    let mut open = File::options().read(true).write(true).open(&file).unwrap();
    let client = UnixStream::connect(world.dir.path().join("socket")).unwrap();
    as_process(&world.process(), || {
        let missing = serve();
        assert!(missing.is_empty(), "{missing:?}");
        forbidden(&world);
        refused("open inside", File::open(&file));
        refused("create inside", File::create(world.dir.path().join("new")));
        refused("unlink", fs::remove_file(&file));
        refused("socketpair", UnixStream::pair());
        refused("datagrams", UdpSocket::bind("127.0.0.1:0"));
        let packets = [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0];
        refused("packets", call(libc::SYS_socket, packets));
        refused("setns", call(libc::SYS_setns, [-1, 0, 0]));
        refused("chmod", call(libc::SYS_fchmod, [-1, 0, 0]));
        assert_eq!(
            capabilities(None).unwrap().permitted,
            CapabilitySet::empty()
        );
        // What is open can be used.
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        open.write_all(b" more").unwrap();
        let _peer = world.socket.accept().unwrap();
        (&client).write_all(b"hello").unwrap();
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        rustix::io::dup(client.as_fd()).unwrap();
        let other = thread::spawn(move || refused("open", File::open("/dev/null")));
        other.join().unwrap();
        // Where limits are not to be had, that is said, and nothing else.
        let twice = serve();
        assert!(matches!(
            twice[..],
            [Error::NoLandlock, Error::Privileges(_), Error::Calls(_)]
        ));
    });
}

#[test]
fn a_port_that_is_named_can_be_listened_on() {
    let world = World::new();
    let (address, process) = (world.address(), world.process());
    drop(world);
    let ports = vec![address.port()];
    as_process(&Process { ports, ..process }, || {
        // Somebody else may have it meanwhile, and the first one until a child has let go of it.
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = TcpListener::bind(address) {
            let kind = error.kind();
            assert!(
                kind == io::ErrorKind::AddrInUse && Instant::now() < end,
                "{error}"
            );
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn who_connects_can_do_so_to_what_is_named_and_nothing_else() {
    let world = World::new();
    let named = TcpListener::bind("127.0.0.1:0").unwrap();
    let of_another = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = |listener: &TcpListener| listener.local_addr().unwrap();
    let file = world.dir.path().join("file");
    let socket = world.dir.path().join("socket");
    let connects = vec![address(&named).port(), address(&of_another).port()];
    let process = Process {
        connects,
        ..world.process()
    };
    as_process(&process, || {
        // The thread of one backend, of which there are others.
        let missing = connect(&[address(&named).port()]);
        assert!(missing.is_empty(), "{missing:?}");
        forbidden(&world);
        TcpStream::connect(address(&named)).unwrap();
        UnixStream::connect(&socket).unwrap();
        refused("another's", TcpStream::connect(address(&of_another)));
        refused("open inside", File::open(&file));
        refused("create inside", File::create(world.dir.path().join("new")));
        refused("datagrams", UdpSocket::bind("127.0.0.1:0"));
        let raw = [libc::AF_INET.into(), libc::SOCK_RAW.into(), 0];
        refused("raw packets", call(libc::SYS_socket, raw));
        let packets = [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0];
        refused("packets", call(libc::SYS_socket, packets));
        assert_eq!(
            capabilities(None).unwrap().permitted,
            CapabilitySet::empty()
        );
    });
    // Who serves uses the connections, and makes none, wherever they have led.
    as_process(&process, || {
        let open = TcpStream::connect(address(&named)).unwrap();
        assert!(serve().is_empty());
        forbidden(&world);
        refused("connect", TcpStream::connect(address(&named)));
        (&open).write_all(b"hello").unwrap();
        rustix::net::connect_unspec(&open).unwrap();
        let elsewhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, address(&of_another).port());
        let again = rustix::net::connect(&open, &elsewhere);
        refused("connect elsewhere", again.map_err(io::Error::from));
    });
}

#[test]
fn what_landlock_never_lets_anybody_do_goes_without_it() {
    let process = Process {
        processes: true,
        ..World::new().process()
    };
    thread::spawn(move || {
        let report = process.enter();
        assert!(matches!(
            report.missing.first(),
            Some(Error::OtherProcesses)
        ));
        File::open("/etc/passwd").unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn this_thread_is_as_free_as_before() {
    assert!(File::open("/etc/passwd").is_ok());
    assert!(Command::new("/bin/true").status().unwrap().success());
}
