// SPDX-License-Identifier: GPL-2.0

//! Sleep, function level reset and shutdown.

use kernel::prelude::*;
use netdev::{
    pci::Power,
    Locked, //
};

use vnet_contract::regs;

use crate::nic::Nic;

#[vtable]
impl Power for Nic<'_> {
    fn prepare_loss(&self, dev: &Locked<'_, Self>) {
        if dev.is_running() {
            self.stop_queues(dev);
        }
        if self.present() {
            // Silent until `recover`: no control interrupt on the way down.
            self.regs.write(regs::EVENT_ENABLE, 0);
            let _ = self.regs.read(regs::EVENT_ENABLE);
        }
    }

    fn recover(&self, dev: &Locked<'_, Self>) {
        if self.regs.alive() {
            let recovered = self.set_up(dev).and_then(|()| {
                if dev.is_running() {
                    self.start_queues(dev)?;
                }
                Ok(())
            });
            match recovered {
                Ok(()) => self.update_link(dev),
                Err(_) => self.give_up(dev, "card cannot be started again"),
            }
        } else {
            self.card_gone(dev);
        }
        // In any case: a check brings back what did not come back now, and the interface can be set down
        // and up.
        self.reattach(dev);
    }

    fn shutdown(&self, dev: &Locked<'_, Self>) {
        self.stop_queues(dev);
        if self.present() {
            self.regs.reset();
        }
    }
}
