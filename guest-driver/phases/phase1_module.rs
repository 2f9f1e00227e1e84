// SPDX-License-Identifier: GPL-2.0

//! Phase 1: a module. It is loaded, says so, knows a parameter, and is unloaded.
//!
//! docs/tour/1-module.md walks through it.

#![forbid(unsafe_code)]

use kernel::prelude::*;

module! {
    type: Phase1,
    name: "vnet_phase1",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 1: a module",
    license: "GPL",
    params: {
        frames: u32 {
            default: 3,
            description: "Frames to pretend to have sent",
        },
    },
}

/// The module's data: made by `init`, and dropped when the module is unloaded.
struct Phase1 {
    frames: u32,
}

impl kernel::Module for Phase1 {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let frames = module_parameters::frames.value().clone();
        if frames > 1000 {
            pr_err!("{frames} frames are more than anybody would believe\n");
            // The module is not loaded, and `insmod` fails with what this says.
            return Err(EINVAL);
        }
        pr_info!("loaded, to send {frames} frames\n");
        Ok(Self { frames })
    }
}

impl Drop for Phase1 {
    fn drop(&mut self) {
        pr_info!("unloaded, {} frames were not sent\n", self.frames);
    }
}
