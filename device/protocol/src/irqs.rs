// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! `SET_IRQS`.

use std::fs::File;

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE, VFIO_IRQ_SET_ACTION_MASK,
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_TYPE_MASK, VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_IRQ_SET_DATA_TYPE_MASK,
};
use vfio_user::{IrqInfo, ServerBackend};

use crate::fields::Fields;
use crate::refusal::Refusal;

/// Size of the fields, and the least that a client can say it is.
const SIZE: u32 = 20;

/// Checks the message and passes it on.
///
/// What reaches the device: interrupts that exist, one action, which fits them, and as many
/// descriptors as interrupts, or none to detach them all. Interrupts are not detached and attached
/// by one message, as no descriptor would be which; clients send one message for each. What
/// begins with an array of truth values reaches the device as so many calls without.
pub(crate) fn set(
    irqs: &[IrqInfo],
    payload: &[u8],
    fds: Vec<File>,
    backend: &mut dyn ServerBackend,
) -> Result<(), Refusal> {
    let mut fields = Fields::new(payload);
    let [argsz, flags, index, start, count] = [
        fields.u32()?,
        fields.u32()?,
        fields.u32()?,
        fields.u32()?,
        fields.u32()?,
    ];
    if argsz < SIZE {
        return Err(Refusal::Length);
    }
    let irq = irqs.get(index as usize).ok_or(Refusal::Irq(index))?;
    let (data, action) = (
        flags & VFIO_IRQ_SET_DATA_TYPE_MASK,
        flags & VFIO_IRQ_SET_ACTION_TYPE_MASK,
    );
    if data | action != flags {
        return Err(Refusal::Flags(flags));
    }
    match action {
        VFIO_IRQ_SET_ACTION_TRIGGER => {}
        VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK
            if irq.flags & VFIO_IRQ_INFO_MASKABLE != 0 => {}
        _ => return Err(Refusal::Flags(flags)),
    }
    let in_range = start.checked_add(count).is_some_and(|end| end <= irq.count);
    if !in_range {
        return Err(Refusal::IrqRange {
            index,
            start,
            count,
        });
    }
    let mut call = |flags, start, count, fds| {
        let done = backend.set_irqs(index, flags, start, count, fds);
        done.map_err(Refusal::Device)
    };
    match data {
        VFIO_IRQ_SET_DATA_EVENTFD => {
            if irq.flags & VFIO_IRQ_INFO_EVENTFD == 0 && count > 0 {
                return Err(Refusal::UnsupportedFlags(flags));
            }
            if !fds.is_empty() && fds.len() != count as usize {
                return Err(Refusal::Descriptors(fds.len()));
            }
            call(flags, start, count, fds)
        }
        _ if !fds.is_empty() => Err(Refusal::Descriptors(fds.len())),
        VFIO_IRQ_SET_DATA_NONE => call(flags, start, count, fds),
        VFIO_IRQ_SET_DATA_BOOL => {
            let wanted = fields.rest();
            if wanted.len() != count as usize {
                return Err(Refusal::Length);
            }
            // Ends where the range does, which was checked.
            for (irq, _) in (start..).zip(wanted).filter(|(_, &wanted)| wanted != 0) {
                call(action | VFIO_IRQ_SET_DATA_NONE, irq, 1, Vec::new())?;
            }
            Ok(())
        }
        _ => Err(Refusal::Flags(flags)),
    }
}
