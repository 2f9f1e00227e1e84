// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Files and network: landlock(7).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    make_bitflags, path_beneath_rules, Access, AccessFs, AccessNet, BitFlags, CompatLevel,
    Compatible, NetPort, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, ABI,
};

use crate::{Error, Process};

/// What is asked of the kernel: files, devices and TCP.
const LEVEL: ABI = ABI::V5;

/// What a process may do in directories of its own.
const OWN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeSock | RemoveFile
});
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});

/// What the process can read of itself, such as the counters of its network namespace.
const ITSELF: &str = "/proc/self";
/// Kept open: the kernel may forget a directory of `/proc` that nobody uses, and knows another one by
/// that name later, for which there is no rule.
static KEPT: OnceLock<Option<PathFd>> = OnceLock::new();

/// Lets the process have what it needs, and nothing else. True: as far as this kernel does.
pub(crate) fn limit(process: &Process) -> Result<bool, Error> {
    KEPT.get_or_init(|| PathFd::new(ITSELF).ok());
    let bind = |&port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::BindTcp));
    let connect = process.connects.iter().map(connect);
    let rules = handled()?
        .add_rules(beneath(&process.writable, OWN))?
        .add_rules(beneath(&process.readable, READ))?
        .add_rules(beneath(&process.devices, DEVICE))?
        .add_rules(path_beneath_rules([ITSELF], READ))?
        .add_rules(process.ports.iter().map(bind))?
        .add_rules(connect)?;
    restrict(rules)
}

/// Lets the thread have no files, and connect to no TCP ports but these.
pub(crate) fn forbid(connects: &[u16]) -> Result<(), Error> {
    let rules = handled()?.add_rules(connects.iter().map(connect))?;
    restrict(rules).map(drop)
}

fn connect(&port: &u16) -> Result<NetPort, RulesetError> {
    Ok(NetPort::new(port, AccessNet::ConnectTcp))
}

/// Paths that are not there are left out: nobody can have them.
fn beneath(
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<landlock::PathBeneath<PathFd>, RulesetError>> + '_ {
    path_beneath_rules(paths.iter().map(|path| path as &Path), access)
}

fn handled() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LEVEL))?
        .handle_access(AccessNet::from_all(LEVEL))?
        .create()
}

fn restrict(rules: RulesetCreated) -> Result<bool, Error> {
    match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Ok(false),
        RulesetStatus::PartiallyEnforced => Ok(true),
        RulesetStatus::NotEnforced => Err(Error::NoLandlock),
    }
}
