// SPDX-License-Identifier: GPL-2.0
/* Mistakes that the types of Rust do not allow, or for which it has no types. */

#include <linux/device/faux.h>
#include <linux/dma-mapping.h>
#include <linux/list.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/timer.h>

int mistake_in_c(int which);

static int __rcu *number;

static void read_without_rcu_lock(void)
{
	pr_info("%p\n", rcu_dereference(number));
}

static int dma_other_direction(void)
{
	struct faux_device *faux = faux_device_create("checkers", NULL, NULL);
	struct device *dev;
	dma_addr_t addr;
	void *memory;
	int err = -ENOMEM;

	if (!faux)
		return err;
	dev = &faux->dev;
	memory = kmalloc(512, GFP_KERNEL);
	if (memory) {
		err = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
		if (!err) {
			addr = dma_map_single(dev, memory, 512, DMA_TO_DEVICE);
			err = dma_mapping_error(dev, addr);
		}
		if (!err)
			dma_unmap_single(dev, addr, 512, DMA_FROM_DEVICE);
		kfree(memory);
	}
	faux_device_destroy(faux);
	return err;
}

static void shift_too_far(void)
{
	int value = 1, by = 40;

	OPTIMIZER_HIDE_VAR(value);
	OPTIMIZER_HIDE_VAR(by);
	value <<= by;
	OPTIMIZER_HIDE_VAR(value);
}

static void nothing(struct timer_list *timer)
{
}

static int free_running_timer(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return -ENOMEM;
	timer_setup(timer, nothing, 0);
	mod_timer(timer, jiffies + 100 * HZ);
	/* The checker stops it. */
	kfree(timer);
	return 0;
}

static void add_twice(void)
{
	static LIST_HEAD(head);
	static LIST_HEAD(entry);

	list_add(&entry, &head);
	/* The checker does nothing instead. */
	list_add(&entry, &head);
	list_del(&entry);
}

static void count_below_zero(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_inc(&count);
}

int mistake_in_c(int which)
{
	switch (which) {
	case 11:
		read_without_rcu_lock();
		return 0;
	case 12:
		return dma_other_direction();
	case 13:
		shift_too_far();
		return 0;
	case 14:
		return free_running_timer();
	case 15:
		add_twice();
		return 0;
	case 16:
		count_below_zero();
		return 0;
	default:
		return -EINVAL;
	}
}
