// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the messages of one client do.

use vfio_bindings::bindings::vfio::{
    vfio_region_info, VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_DMA_UNMAP_FLAG_ALL,
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend};

use crate::command::Command;
use crate::fields::Fields;
use crate::header::{Header, Kind, HEADER_SIZE};
use crate::inbox::Message;
use crate::irqs;
use crate::refusal::Refusal;
use crate::version::{negotiate, Negotiated};

/// Sizes of payloads, and the least that a client can say they are.
const INFO_SIZE: u32 = 16;
const REGION_INFO_SIZE: u32 = size_of::<vfio_region_info>() as u32;
const MAP_SIZE: u32 = 32;
const UNMAP_SIZE: u32 = 24;
/// One of several writes.
const WRITE_SIZE: usize = 24;
/// Most bytes that such a one writes.
const WRITE_DATA: u32 = 8;

/// What a device looks like.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its regions, by number. Clients map none of them.
    pub regions: Vec<vfio_region_info>,
    /// Its kinds of interrupts, by number.
    pub irqs: Vec<IrqInfo>,
    /// It can be reset.
    pub resettable: bool,
    /// Most ranges of memory that it can have at a time.
    pub max_maps: u32,
}

/// The protocol, as spoken with one client.
#[derive(Debug)]
pub struct Protocol {
    layout: Layout,
    negotiated: Option<Negotiated>,
}

/// An access to a region, checked.
struct Access {
    region: u32,
    offset: u64,
    count: u32,
}

impl Protocol {
    /// A client has connected. With `negotiated`, it has talked to another server before, and goes
    /// on from there.
    pub fn new(layout: Layout, negotiated: Option<Negotiated>) -> Self {
        Self { layout, negotiated }
    }

    /// What was agreed on, if it was.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated
    }

    /// Does what a message asks for, and writes the answer in place of what is in `reply`. That
    /// stays empty if there is nothing to answer.
    ///
    /// A message that is refused is answered too; the reason is returned for the log. If it is
    /// fatal, the session ends once the client has the answer.
    pub fn handle(
        &mut self,
        message: Message<'_>,
        backend: &mut dyn ServerBackend,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let header = message.header;
        reply.clear();
        reply.extend_from_slice(&[0; HEADER_SIZE]);
        let done = self.execute(message, backend, reply);
        match &done {
            _ if header.no_reply() => reply.clear(),
            // A reply is not longer than the client takes, which is far from 4 GiB.
            Ok(()) => {
                let size = reply.len() as u32;
                reply[..HEADER_SIZE].copy_from_slice(&header.reply(size, None));
            }
            Err(refusal) => Self::refuse(header, refusal, reply),
        }
        done
    }

    /// Writes the answer to a message that is refused, in place of what is in `reply`.
    pub fn refuse(header: Header, refusal: &Refusal, reply: &mut Vec<u8>) {
        reply.clear();
        if !header.no_reply() {
            let errno = Some(refusal.errno());
            reply.extend_from_slice(&header.reply(HEADER_SIZE as u32, errno));
        }
    }

    fn execute(
        &mut self,
        message: Message<'_>,
        backend: &mut dyn ServerBackend,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match message.header.kind() {
            Kind::Command => {}
            Kind::Reply => return Err(Refusal::Reply),
            Kind::Unknown(other) => return Err(Refusal::Type(other)),
        }
        let payload = message.payload.ok_or(Refusal::TooLong)?;
        if let Some(lost) = message.lost {
            return Err(Refusal::Lost(lost));
        }
        let command = Command::from(message.header.command);
        let negotiated = match (self.negotiated, command) {
            (None, Command::Version) => {
                self.negotiated = Some(negotiate(payload, self.layout.max_maps, reply)?);
                return Ok(());
            }
            (Some(_), Command::Version) | (None, _) => return Err(Refusal::Order),
            (Some(negotiated), _) => negotiated,
        };
        // Descriptors that a command does not take are closed, as is usual.
        match command {
            Command::RegionWrite => self.write(payload, backend, reply),
            Command::RegionWriteMulti if negotiated.write_multiple => {
                self.write_multi(payload, backend, reply)
            }
            Command::RegionRead => self.read(payload, negotiated, backend, reply),
            Command::SetIrqs => irqs::set(&self.layout.irqs, payload, message.fds, backend),
            Command::DmaMap => map(payload, message.fds, backend),
            Command::DmaUnmap => unmap(payload, backend, reply),
            Command::GetInfo => self.info(payload, reply),
            Command::GetRegionInfo => self.region_info(payload, reply),
            Command::GetIrqInfo => self.irq_info(payload, reply),
            Command::Reset if self.layout.resettable => backend.reset().map_err(Refusal::Device),
            Command::Version
            | Command::Reset
            | Command::RegionWriteMulti
            | Command::Unsupported(_) => Err(Refusal::Unsupported(message.header.command)),
        }
    }

    /// Reads what a region access begins with, and checks it.
    fn access(&self, fields: &mut Fields<'_>) -> Result<Access, Refusal> {
        let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
        let info = self.layout.regions.get(region as usize);
        let size = info.ok_or(Refusal::Region(region))?.size;
        let end = offset.checked_add(count.into());
        if end.is_none_or(|end| end > size) {
            return Err(Refusal::Access {
                region,
                offset,
                count,
            });
        }
        Ok(Access {
            region,
            offset,
            count,
        })
    }

    fn read(
        &self,
        payload: &[u8],
        negotiated: Negotiated,
        backend: &mut dyn ServerBackend,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Access {
            region,
            offset,
            count,
        } = self.access(&mut Fields::new(payload))?;
        if count > negotiated.max_data {
            return Err(Refusal::ReplyTooLong);
        }
        put_access(reply, region, offset, count);
        let data = reply.len();
        reply.resize(data + count as usize, 0);
        let read = backend.region_read(region, offset, &mut reply[data..]);
        read.map_err(Refusal::Device)
    }

    fn write(
        &self,
        payload: &[u8],
        backend: &mut dyn ServerBackend,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut fields = Fields::new(payload);
        let Access {
            region,
            offset,
            count,
        } = self.access(&mut fields)?;
        let data = fields.rest();
        if data.len() != count as usize {
            return Err(Refusal::Length);
        }
        let written = backend.region_write(region, offset, data);
        put_access(reply, region, offset, count);
        written.map_err(Refusal::Device)
    }

    /// All writes are checked before the first is done.
    fn write_multi(
        &self,
        payload: &[u8],
        backend: &mut dyn ServerBackend,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut fields = Fields::new(payload);
        let count = fields.u64()?;
        let writes = fields.rest().chunks_exact(WRITE_SIZE);
        if !writes.remainder().is_empty() || writes.len() as u64 != count {
            return Err(Refusal::Length);
        }
        let one = |write: &[u8]| {
            let access = self.access(&mut Fields::new(write))?;
            match access.count {
                ..=WRITE_DATA => Ok(access),
                _ => Err(Refusal::Length),
            }
        };
        for write in writes.clone() {
            one(write)?;
        }
        for write in writes {
            let access = one(write)?;
            let data = &write[WRITE_SIZE - WRITE_DATA as usize..][..access.count as usize];
            let written = backend.region_write(access.region, access.offset, data);
            written.map_err(Refusal::Device)?;
        }
        reply.extend_from_slice(&count.to_ne_bytes());
        Ok(())
    }

    fn info(&self, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        room(Fields::new(payload).u32()?, INFO_SIZE)?;
        let reset = match self.layout.resettable {
            true => VFIO_DEVICE_FLAGS_RESET,
            false => 0,
        };
        let regions = self.layout.regions.len() as u32;
        let irqs = self.layout.irqs.len() as u32;
        put(
            reply,
            [INFO_SIZE, VFIO_DEVICE_FLAGS_PCI | reset, regions, irqs],
        );
        Ok(())
    }

    fn region_info(&self, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut fields = Fields::new(payload);
        let [argsz, _flags, index] = [fields.u32()?, fields.u32()?, fields.u32()?];
        room(argsz, REGION_INFO_SIZE)?;
        let info = self.layout.regions.get(index as usize);
        let info = info.ok_or(Refusal::Region(index))?;
        put(reply, [REGION_INFO_SIZE, info.flags, index, 0]);
        reply.extend_from_slice(&info.size.to_ne_bytes());
        reply.extend_from_slice(&info.offset.to_ne_bytes());
        Ok(())
    }

    fn irq_info(&self, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut fields = Fields::new(payload);
        let [argsz, _flags, index] = [fields.u32()?, fields.u32()?, fields.u32()?];
        room(argsz, INFO_SIZE)?;
        let info = self.layout.irqs.get(index as usize);
        let info = info.ok_or(Refusal::Irq(index))?;
        put(reply, [INFO_SIZE, info.flags, index, info.count]);
        Ok(())
    }
}

/// Memory is to be mapped by its descriptor, as it is without this flag. It and the next are of libvfio-user
/// (`VFIO_USER_F_DMA_REGION_*`, 2026).
const MAP_MMAP: u32 = 1 << 2;
/// Memory is to be read and written as a file is, by its descriptor.
const MAP_FILE_IO: u32 = 1 << 3;

fn map(
    payload: &[u8],
    mut fds: Vec<std::fs::File>,
    backend: &mut dyn ServerBackend,
) -> Result<(), Refusal> {
    let mut fields = Fields::new(payload);
    let (argsz, flags) = (fields.u32()?, fields.u32()?);
    let (offset, address, size) = (fields.u64()?, fields.u64()?, fields.u64()?);
    room(argsz, MAP_SIZE)?;
    let access = DmaMapFlags::READ_WRITE.bits();
    if flags & !(access | MAP_MMAP | MAP_FILE_IO) != 0 {
        return Err(Refusal::Flags(flags));
    }
    if flags & MAP_FILE_IO != 0 {
        return Err(Refusal::UnsupportedFlags(flags));
    }
    if fds.len() > 1 || flags & MAP_MMAP != 0 && fds.is_empty() {
        return Err(Refusal::Descriptors(fds.len()));
    }
    let flags = DmaMapFlags::from_bits_retain(flags & access);
    let mapped = backend.dma_map(flags, offset, address, size, fds.pop());
    mapped.map_err(Refusal::Device)
}

fn unmap(
    payload: &[u8],
    backend: &mut dyn ServerBackend,
    reply: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut fields = Fields::new(payload);
    let (argsz, flags) = (fields.u32()?, fields.u32()?);
    let (address, size) = (fields.u64()?, fields.u64()?);
    room(argsz, UNMAP_SIZE)?;
    if flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP != 0 {
        return Err(Refusal::UnsupportedFlags(flags));
    }
    if flags & !VFIO_DMA_UNMAP_FLAG_ALL != 0 {
        return Err(Refusal::Flags(flags));
    }
    // The bits as they came: the crate's names for them are one bit off.
    let unmapped = backend.dma_unmap(DmaUnmapFlags::from_bits_retain(flags), address, size);
    put(reply, [UNMAP_SIZE, flags]);
    reply.extend_from_slice(&address.to_ne_bytes());
    reply.extend_from_slice(&size.to_ne_bytes());
    unmapped.map_err(Refusal::Device)
}

/// Refuses a client whose `argsz` leaves no room for what is exchanged.
fn room(argsz: u32, size: u32) -> Result<(), Refusal> {
    match argsz {
        _ if argsz >= size => Ok(()),
        _ => Err(Refusal::Length),
    }
}

fn put<const N: usize>(reply: &mut Vec<u8>, words: [u32; N]) {
    for word in words {
        reply.extend_from_slice(&word.to_ne_bytes());
    }
}

fn put_access(reply: &mut Vec<u8>, region: u32, offset: u64, count: u32) {
    reply.extend_from_slice(&offset.to_ne_bytes());
    put(reply, [region, count]);
}
