// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The kernel's bridge, as far as a port of it is concerned.

use std::io;

use rustix::io::Errno;
use vnet_backend::Error;

use crate::attach::is;
use crate::interface::Interface;
use crate::name::Name;
use crate::sys;

/// Makes an interface a port of a bridge, with the bridge's MTU, and brings it up. One that is a port of it already
/// stays one, with all that was set for the port.
pub(crate) fn join(port: &Interface, bridge: &str) -> Result<(), Error> {
    let failed = |source: io::Error| {
        let hint = match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NODEV) => " (there is no such bridge)",
            Some(Errno::OPNOTSUPP) => " (it is no bridge)",
            Some(Errno::PERM) => " (it takes CAP_NET_ADMIN)",
            Some(Errno::BUSY) => " (it is in another bridge)",
            _ => "",
        };
        Error::Io {
            what: format!("cannot join bridge {bridge}{hint}"),
            source,
        }
    };
    let bridge = Name::new(bridge)?;
    let mtu = sys::interface_mtu(port.socket(), &bridge).map_err(failed)?;
    let before = port.mtu().map_err(failed)?;
    // Before it joins, as the bridge has the least of its ports' MTUs.
    port.set_mtu(mtu).map_err(failed)?;
    let joined = match sys::join_bridge(port.socket(), &bridge, port.index()) {
        Err(e)
            if is(&e, Errno::BUSY) && sys::is_in_bridge(port.socket(), &bridge, port.index()) =>
        {
            Ok(())
        }
        joined => joined,
    };
    if let Err(e) = joined {
        // Fails if it is gone.
        let _ = port.set_mtu(before);
        return Err(failed(e));
    }
    port.bring_up().map_err(failed)
}
