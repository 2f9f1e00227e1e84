// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive filter.

/// Which frames the driver wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// Own address.
    pub mac: [u8; 6],
    /// Receive every frame.
    pub promisc: bool,
    /// Receive every multicast frame.
    pub allmulti: bool,
    /// Receive broadcast frames.
    pub broadcast: bool,
    /// Payload bytes of the longest frame that carries no segment size.
    pub mtu: u16,
    /// More unicast and multicast addresses to receive.
    pub table: Vec<[u8; 6]>,
}
