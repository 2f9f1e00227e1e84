// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the threads of vnetd can ask of the kernel.
//!
//! A device server needs little of its system once it serves: memory of its clients, descriptors that it
//! has, clocks. What it does not need, it gives up, so that a mistake in it is worth less. All of this is
//! the kernel's, and of each thread; threads that are started later have it from who starts them:
//!
//! - **The process** ([`Process::enter`], before there is a second thread): no new privileges, the
//!   capabilities of a device server and no others, files only where it was told that it has some
//!   (Landlock), connections by TCP only to ports that it was told, and a list of system calls in which there is no execve(2),
//!   ptrace(2), mount(2), bpf(2) and so on; no memory to run code in, and no other processes.
//! - **Those who serve** ([`serve`]): the threads that look at what clients and guests write. They have
//!   no capabilities, open no files, and make no sockets but unix ones.
//! - **Those who connect** for them ([`connect`]), if there are any: the same, but for TCP connections to
//!   the ports that they were told. They look at nothing that a guest writes.
//!
//! What is left to the rest of the process, which those who serve share their memory with, is what the
//! operator can ask for while it runs: cards that come, other backends. What a kernel does not have, or a
//! container does not let through, is done without, and said ([`Report`]).

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod calls;
mod capabilities;
mod files;

use std::path::PathBuf;

use calls::Role;
use rustix::thread::set_no_new_privs;

/// What there is no limit to, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Privileges that cannot be given up.
    #[error("privileges are not given up: {0}")]
    Privileges(#[source] rustix::io::Errno),
    /// Landlock is there, and does not do it.
    #[error("files and network are not limited: {0}")]
    Files(#[from] landlock::RulesetError),
    /// Landlock is not there.
    #[error("files and network are not limited: this kernel has no Landlock")]
    NoLandlock,
    /// Landlock would not let the process do what it is to do.
    #[error("files and network are not limited: Landlock lets nobody use what is another process's in /proc")]
    OtherProcesses,
    /// A filter that cannot be made.
    #[error("system calls are not limited: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// A filter that the kernel does not take.
    #[error("system calls are not limited: {0}")]
    Calls(#[from] seccompiler::Error),
}

/// What a process needs.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Directories, or files, in which it may do as it likes but run programs and make devices.
    pub writable: Vec<PathBuf>,
    /// Directories, or files, in which it may read.
    pub readable: Vec<PathBuf>,
    /// Devices that it may open and control.
    pub devices: Vec<PathBuf>,
    /// TCP ports that it may listen on; 0: one that the system chooses.
    pub ports: Vec<u16>,
    /// TCP ports that it may connect to. Landlock knows no addresses.
    pub connects: Vec<u16>,
    /// It enters other network namespaces.
    pub namespaces: bool,
    /// It uses what there is of other processes in `/proc`, such as their namespaces. Landlock cannot let
    /// it (ptrace(2), access mode checks), so there is none.
    pub processes: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// What there is no limit to, if there is anything.
    pub missing: Vec<Error>,
    /// The kernel's Landlock is older than what was asked of it, and does a part.
    pub partly: bool,
}

impl Process {
    /// Limits the process as far as the kernel does. Before it starts threads.
    pub fn enter(&self) -> Report {
        let mut report = Report::default();
        let files = match self.processes {
            true => Err(Error::OtherProcesses),
            false => files::limit(self),
        };
        match files {
            Ok(partly) => report.partly = partly,
            Err(e) => report.missing.push(e),
        }
        let rest = [
            privileges(capabilities::of_process(self)),
            calls::limit(Role::Process),
        ];
        report
            .missing
            .extend(rest.into_iter().filter_map(Result::err));
        report
    }
}

/// Limits the thread that calls this, and those that it will start, to what it takes to serve clients.
/// Returns what there is no limit to.
pub fn serve() -> Vec<Error> {
    limit(Role::Service, &[])
}

/// Limits the thread that calls this to what it takes to connect to these TCP ports, and to unix sockets, for
/// those that serve. They have to be among those of the process. Returns what there is no limit to.
pub fn connect(ports: &[u16]) -> Vec<Error> {
    limit(Role::Connector, ports)
}

fn limit(role: Role, connects: &[u16]) -> Vec<Error> {
    let all = [
        files::forbid(connects),
        privileges(capabilities::NONE),
        calls::limit(role),
    ];
    all.into_iter().filter_map(Result::err).collect()
}

fn privileges(some: rustix::thread::CapabilitySet) -> Result<(), Error> {
    set_no_new_privs(true)
        .and_then(|()| capabilities::keep(some))
        .map_err(Error::Privileges)
}
