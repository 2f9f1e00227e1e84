/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Callable forms of what the networking headers have as macros and inline functions, and
 * constants that bindgen cannot evaluate. No logic lives here.
 */
#ifndef _NETDEV_HELPERS_H
#define _NETDEV_HELPERS_H

#include <linux/dim.h>
#include <linux/dma-mapping.h>
#include <linux/ethtool.h>
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/timer.h>
#include <linux/workqueue.h>
#include <net/page_pool/types.h>

static const netdev_features_t ND_F_SG = NETIF_F_SG;
static const netdev_features_t ND_F_HW_CSUM = NETIF_F_HW_CSUM;
static const netdev_features_t ND_F_RXCSUM = NETIF_F_RXCSUM;
static const netdev_features_t ND_F_GRO_HW = NETIF_F_GRO_HW;
static const netdev_features_t ND_F_RXHASH = NETIF_F_RXHASH;
static const netdev_features_t ND_F_TSO = NETIF_F_TSO;
static const netdev_features_t ND_F_TSO6 = NETIF_F_TSO6;
static const netdev_features_t ND_F_TSO_ECN = NETIF_F_TSO_ECN;
static const netdev_features_t ND_F_GSO_UDP_L4 = NETIF_F_GSO_UDP_L4;
static const netdev_features_t ND_F_GSO_MASK = NETIF_F_GSO_MASK;
static const unsigned int ND_GSO_TCPV4 = SKB_GSO_TCPV4;
static const unsigned int ND_GSO_TCPV6 = SKB_GSO_TCPV6;
static const unsigned int ND_GSO_UDP_L4 = SKB_GSO_UDP_L4;
static const unsigned int ND_GSO_ECN = SKB_GSO_TCP_ECN;
static const unsigned int ND_GSO_FIXEDID = SKB_GSO_TCP_FIXEDID;
static const unsigned int ND_GSO_DODGY = SKB_GSO_DODGY;
static const netdev_features_t ND_F_HIGHDMA = NETIF_F_HIGHDMA;
static const u32 ND_COALESCE = ETHTOOL_COALESCE_USECS | ETHTOOL_COALESCE_MAX_FRAMES |
			       ETHTOOL_COALESCE_USE_ADAPTIVE_RX;
static const u32 ND_RING_PARAMS = ETHTOOL_RING_USE_TCP_DATA_SPLIT;
static const u8 ND_SPLIT_OFF = ETHTOOL_TCP_DATA_SPLIT_DISABLED;
static const u8 ND_SPLIT_ON = ETHTOOL_TCP_DATA_SPLIT_ENABLED;
static const u8 ND_RSS_TOEPLITZ = ETH_RSS_HASH_TOP;
static const u8 ND_RSS_NO_CHANGE = ETH_RSS_HASH_NO_CHANGE;
static const unsigned int ND_PAGE_SIZE = PAGE_SIZE;
static const unsigned int ND_MAX_SKB_FRAGS = MAX_SKB_FRAGS;
static const unsigned int ND_CACHE_LINE = SMP_CACHE_BYTES;
static const unsigned int ND_RX_MULTICAST = 1 << 16;

/* What a driver wants to know of a frame to send. The second half counts if gso_size is not zero. */
struct nd_tx_meta {
	u32 len;
	u16 protocol;
	u16 queue;
	u16 csum_start;
	u16 csum_offset;
	bool csum_partial;
	bool more;
	u16 gso_size;
	u16 gso_segs;
	u16 header_len;
	u32 gso_type;
};

struct nd_tx_part {
	dma_addr_t addr;
	u32 len;
};

/* A frame as mapped: the linear part, with the driver's header before it if `header`, then the
 * fragments; parts without bytes are left out.
 */
struct nd_tx_parts {
	u16 count;
	bool header;
	bool unmap;
	struct nd_tx_part part[1 + MAX_SKB_FRAGS];
};

bool nd_parts_map(struct device *dev, u8 *data, u32 len, const skb_frag_t *frags, int count,
		  struct nd_tx_parts *parts);
void nd_skb_tx_meta(const struct sk_buff *skb, struct nd_tx_meta *meta);
bool nd_skb_map(struct device *dev, struct sk_buff *skb, const void *header, u32 header_len,
		struct nd_tx_parts *parts);
/* The header, then all of the skb; false if that cannot be read. */
bool nd_skb_copy_out(struct sk_buff *skb, const void *header, u32 header_len, void *to);
void nd_dma_unmap(struct device *dev, dma_addr_t addr, u32 len);
netdev_features_t nd_features_check(struct sk_buff *skb, netdev_features_t features);

/* What the device says of a received frame. */
struct nd_rx_meta {
	u32 hash;
	bool hash_l3;
	bool hash_l4;
	bool csum_unnecessary;
};

/* An skb with a copy of the data as its linear part, in memory of the pool. */
struct sk_buff *nd_skb_copy(struct page_pool *heads, const void *data, u32 len);
/* The same in any context, in memory of the allocator. */
struct sk_buff *nd_skb_new(struct net_device *dev, const void *data, u32 len);
void nd_skb_add_page(struct sk_buff *skb, struct page *page, u32 offset, u32 len, u32 truesize);
u32 nd_skb_frags(const struct sk_buff *skb);
/* hdr is a struct virtio_net_hdr, unchecked. */
bool nd_skb_set_offload(struct net_device *dev, struct sk_buff *skb, const void *hdr, u16 segments);
/* Gives the EtherType, with ND_RX_MULTICAST for a multicast frame. */
u32 nd_skb_receive(struct napi_struct *napi, struct sk_buff *skb, u16 queue,
		   const struct nd_rx_meta *meta);
u32 nd_skb_receive_later(struct net_device *dev, struct sk_buff *skb,
			 const struct nd_rx_meta *meta);

/* Pool of pages for one receive queue, mapped and synced for the device to write. */
struct nd_page_pool_params {
	struct device *dev;
	struct net_device *netdev;
	struct napi_struct *napi;
	u32 queue;
	u32 pages;
	u32 order;
	u32 offset;
	u32 len;
};

/* Pool of memory for the linear parts of skbs, which no device reaches. */
struct page_pool *nd_head_pool_create(struct net_device *netdev, struct napi_struct *napi,
				      u32 queue);
struct page_pool *nd_page_pool_create(const struct nd_page_pool_params *params);
struct page *nd_page_pool_alloc(struct page_pool *pool, u32 order, bool may_sleep);
dma_addr_t nd_page_pool_dma_addr(const struct page *page);
void nd_page_pool_ref(struct page *page);
void nd_page_pool_sync_for_cpu(const struct page *page, u32 offset, u32 len);
void nd_page_pool_sync_for_device(const struct page *page, u32 offset, u32 len);
void nd_page_pool_put(struct page *page, bool napi);
void *nd_page_address(const struct page *page);

void nd_napi_init(struct napi_struct *napi);
void nd_napi_add(struct net_device *dev, struct napi_struct *napi,
		 int (*poll)(struct napi_struct *napi, int budget), int index);
void nd_napi_del(struct napi_struct *napi);
void nd_napi_set_irq(struct napi_struct *napi, int irq);
void nd_napi_schedule(struct napi_struct *napi);
void nd_napi_schedule_irqoff(struct napi_struct *napi);

void nd_tx_lock(struct netdev_queue *txq);
bool nd_tx_trylock(struct netdev_queue *txq);
void nd_tx_unlock(struct netdev_queue *txq);
void nd_tx_lock_bh(struct netdev_queue *txq);
void nd_tx_unlock_bh(struct netdev_queue *txq);
void nd_tx_start(struct netdev_queue *txq);
void nd_tx_touch(struct netdev_queue *txq);
void nd_tx_stop(struct netdev_queue *txq);
void nd_tx_wake(struct netdev_queue *txq);
bool nd_tx_stopped(const struct netdev_queue *txq);
bool nd_tx_sent(struct netdev_queue *txq, u32 bytes, bool more);
void nd_tx_completed(struct netdev_queue *txq, u32 frames, u32 bytes);
void nd_tx_reset(struct netdev_queue *txq);

void nd_set_unicast_filter(struct net_device *dev);
void nd_set_mac(struct net_device *dev, const u8 *mac);
void nd_random_mac(u8 *mac);
/* The callback is set once; starting a timer that runs defers it. */
void nd_timer_setup(struct timer_list *timer, void (*function)(struct timer_list *));
void nd_timer_start(struct timer_list *timer, unsigned long jiffies_from_now);

void nd_work_init(struct work_struct *work, void (*function)(struct work_struct *));
/* On this CPU; without effect if the work waits already. */
void nd_work_schedule(struct work_struct *work);

void nd_dim_stop(struct dim *dim);
void nd_dim(struct dim *dim, u16 events, u64 packets, u64 bytes);
void nd_dim_restart(struct dim *dim);

/* Counters of 64 bits, so many a CPU. The address is one of all CPUs, and no pointer. */
u64 *nd_percpu_alloc(size_t count);
void nd_percpu_free(u64 *base);
void nd_percpu_add(u64 *base, size_t index, u64 n);
u64 nd_percpu_sum(const u64 *base, size_t index);

u32 nd_online_cpus(void);
/* A device is where its parent is. The core knows that of those that are registered only. */
void nd_set_parent_node(struct net_device *dev);
/* The CPU that is the i-th best for a device, of those online; from the first again after the last. */
u32 nd_local_cpu(const struct device *dev, u32 i);
/* What irqbalance and the like are told; taken back with a mask of NULL before the irq is freed. */
void nd_irq_hint(u32 irq, const struct cpumask *mask);
const struct cpumask *nd_cpumask_of(u32 cpu);
void nd_mb(void);
void nd_dma_rmb(void);
void nd_dma_wmb(void);
unsigned long nd_spin_lock_irqsave(spinlock_t *lock);
bool nd_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void nd_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);
void nd_driver_name(struct ethtool_drvinfo *info);
bool nd_running(const struct net_device *dev);
bool nd_present(const struct net_device *dev);

#endif
