// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues that the card did not start.

use vm_memory::{GuestAddress, GuestMemory};
use vnet_contract::queue::Error;
use vnet_dma::DmaMap;
use vnet_queue::{Fault, RingConfig};

use crate::shadow::parts;
use crate::{Finding, Rule, Sanitizer};

impl Sanitizer {
    /// The card refused to start a queue that was programmed like this.
    pub fn refused(&self, queue: u16, config: &RingConfig, fault: Fault, mem: Option<&DmaMap>) {
        if fault.error != Error::RingFault {
            let due = "what section 6.2 of the data sheet asks for";
            let finding = Finding::new(Rule::QueueSetup, fault.to_string(), due);
            return self.report(finding.queue(queue));
        }
        let Some(mem) = mem else {
            let due = "that bus mastering is enabled first";
            let finding = Finding::new(Rule::DmaUnreachable, "no bus mastering", due);
            return self.report(finding.queue(queue));
        };
        // The size was found good before.
        let missing = parts(config, config.size as u16)
            .into_iter()
            .find(|&(at, bytes, access)| !mem.check_range(GuestAddress(at), bytes, access));
        let address = missing.map_or(u64::from(fault.info), |part| part.0);
        self.out_of_reach(queue, None, address);
    }

    /// Reports memory that the card cannot reach.
    pub(crate) fn out_of_reach(&self, queue: u16, head: Option<u16>, address: u64) {
        let rule = match self.was_unmapped(address) {
            true => Rule::DmaUnmapped,
            false => Rule::DmaUnreachable,
        };
        self.missed(rule, queue, head, address);
    }

    /// Reports memory that the card could reach when it got it, and cannot now.
    pub(crate) fn lost(&self, queue: u16, head: u16, address: u64) {
        self.missed(Rule::DmaUnmapped, queue, Some(head), address);
    }

    fn missed(&self, rule: Rule, queue: u16, head: Option<u16>, address: u64) {
        let due = "memory that is mapped for as long as the card may use it";
        let finding = Finding::new(rule, format!("bus address {address:#x}"), due);
        self.report(Finding {
            descriptor: head,
            ..finding.queue(queue)
        });
    }
}
