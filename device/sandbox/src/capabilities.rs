// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Capabilities: capabilities(7).

use rustix::io::Errno;
use rustix::thread::{
    capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, CapabilitySet, CapabilitySets,
};

use crate::Process;

pub(crate) const NONE: CapabilitySet = CapabilitySet::empty();

/// Ports below this take a capability.
const FREE_PORT: u16 = 1024;

/// What live changes take: TAP interfaces and bridges, packet sockets; other namespaces. And files in
/// directories of others, such as of those who run QEMU: which, Landlock says.
pub(crate) fn of_process(process: &Process) -> CapabilitySet {
    let mut some = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::DAC_OVERRIDE;
    let ports = &process.ports;
    let low = ports.iter().any(|port| (1..FREE_PORT).contains(port));
    some.set(CapabilitySet::SYS_ADMIN, process.namespaces);
    some.set(CapabilitySet::SYS_PTRACE, process.processes);
    some.set(CapabilitySet::NET_BIND_SERVICE, low);
    some
}

/// Gives up all others, as far as the thread has any. Programs that it might run get no others, either.
pub(crate) fn keep(some: CapabilitySet) -> Result<(), Errno> {
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(some).iter() {
            match remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(e) => return Err(e),
            }
        }
    }
    match clear_ambient_capability_set() {
        // Older than these.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(e) => return Err(e),
    }
    let sets = CapabilitySets {
        effective: now.effective & some,
        permitted: now.permitted & some,
        inheritable: NONE,
    };
    set_capabilities(None, sets)
}
