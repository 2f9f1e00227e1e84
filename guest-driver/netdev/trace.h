/* SPDX-License-Identifier: GPL-2.0 */
/* Trace events for the steps of a packet: see docs in trace.rs. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vnet

#if !defined(_VNET_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VNET_TRACE_H

#include <linux/netdevice.h>
#include <linux/tracepoint.h>

/* A doorbell is about to be written: the card is told of new buffers. */
TRACE_EVENT(vnet_doorbell,
	TP_PROTO(const struct net_device *dev, u16 queue, u16 avail),
	TP_ARGS(dev, queue, avail),
	TP_STRUCT__entry(
		__string(name, dev->name)
		__field(u16, queue)
		__field(u16, avail)
	),
	TP_fast_assign(
		__assign_str(name);
		__entry->queue = queue;
		__entry->avail = avail;
	),
	TP_printk("%s queue=%u avail=%u", __get_str(name), __entry->queue, __entry->avail)
);

/* The interrupt of a channel arrived. */
TRACE_EVENT(vnet_irq,
	TP_PROTO(const struct net_device *dev, u16 channel),
	TP_ARGS(dev, channel),
	TP_STRUCT__entry(
		__string(name, dev->name)
		__field(u16, channel)
	),
	TP_fast_assign(
		__assign_str(name);
		__entry->channel = channel;
	),
	TP_printk("%s channel=%u", __get_str(name), __entry->channel)
);

/* A NAPI poll ended: frames received, and whether the channel went idle. */
TRACE_EVENT(vnet_poll,
	TP_PROTO(const struct net_device *dev, u16 channel, u32 done, u32 budget, bool idle),
	TP_ARGS(dev, channel, done, budget, idle),
	TP_STRUCT__entry(
		__string(name, dev->name)
		__field(u16, channel)
		__field(u32, done)
		__field(u32, budget)
		__field(bool, idle)
	),
	TP_fast_assign(
		__assign_str(name);
		__entry->channel = channel;
		__entry->done = done;
		__entry->budget = budget;
		__entry->idle = idle;
	),
	TP_printk("%s channel=%u done=%u budget=%u idle=%d", __get_str(name),
		  __entry->channel, __entry->done, __entry->budget, __entry->idle)
);

/* The card returned transmitted frames. */
TRACE_EVENT(vnet_complete,
	TP_PROTO(const struct net_device *dev, u16 channel, u32 frames, u32 bytes),
	TP_ARGS(dev, channel, frames, bytes),
	TP_STRUCT__entry(
		__string(name, dev->name)
		__field(u16, channel)
		__field(u32, frames)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__assign_str(name);
		__entry->channel = channel;
		__entry->frames = frames;
		__entry->bytes = bytes;
	),
	TP_printk("%s channel=%u frames=%u bytes=%u", __get_str(name),
		  __entry->channel, __entry->frames, __entry->bytes)
);

/* Calls from Rust pass the static key in Rust code, then enter here. */
void rust_do_trace_vnet_doorbell(const struct net_device *dev, u16 queue, u16 avail);
void rust_do_trace_vnet_irq(const struct net_device *dev, u16 channel);
void rust_do_trace_vnet_poll(const struct net_device *dev, u16 channel, u32 done, u32 budget,
			     bool idle);
void rust_do_trace_vnet_complete(const struct net_device *dev, u16 channel, u32 frames, u32 bytes);

#endif /* _VNET_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
