# SPDX-License-Identifier: GPL-2.0
#
# What makes the crate `netdev`, for the Kbuild of a driver beside whose sources this folder is:
#
#   layer                     the objects, to be linked into a module (or once for several)
#   $(call crate,FOLDER/NAME)   flags of a crate that others use
#   $(call extern,FOLDER/NAME)  flags of one that uses it; its object has to be made first

layer := netdev/netdev.o netdev/helpers.o netdev/helpers_xdp.o netdev/trace.o

crate = --crate-name $(notdir $1) --emit=metadata=$(obj)/$(dir $1)lib$(notdir $1).rmeta
extern = --extern $(notdir $1)=$(obj)/$(dir $1)lib$(notdir $1).rmeta

RUSTFLAGS_netdev/netdev.o := $(call crate,netdev/netdev) \
	$(if $(filter 7.2,$(VERSION).$(PATCHLEVEL)),--cfg kernel_7_2)

$(obj)/netdev/netdev.o: $(obj)/netdev/bindings_generated.rs

$(obj)/netdev/netdev.o: private export NETDEV_BINDINGS = $(abspath $(obj))/netdev/bindings_generated.rs

# trace/define_trace.h includes the header of the events once more, by name.
CFLAGS_netdev/trace.o := -I$(src)/netdev

# Bindings for the networking types that the kernel crate does not bind, made with the flags and
# the list of GCC options unknown to Clang that the kernel's own bindings are made with. The
# custom attributes in the kernel's parameters are for enums that its own bindings already have.
targets += netdev/bindings_generated.rs
clean-files += netdev/bindings_generated.rs

bindgen_skip_c_flags := $(shell sed -n '/^bindgen_skip_c_flags *:=/,/[^\\]$$/p' \
	$(srctree)/rust/Makefile | sed 's/^.*:=//; s/\\$$//')
bindgen_c_flags = $(filter-out $(bindgen_skip_c_flags), $(c_flags)) -w \
	--target=x86_64-linux-gnu -fno-builtin -D__BINDGEN__ -DMODULE
bindgen_parameters = $(shell cat $(srctree)/rust/bindgen_parameters $(src)/netdev/bindgen_parameters | \
	grep -Ev '^\#|^$$|with-attribute-custom|newtype-enum')

quiet_cmd_netdev_bindgen = BINDGEN $(quiet_modtag) $@
      cmd_netdev_bindgen = $(BINDGEN) $< $(bindgen_parameters) --rust-target 1.85 \
	--use-core --with-derive-default --ctypes-prefix ffi --no-layout-tests --no-debug '.*' \
	--enable-function-attribute-detection -o $@ -- $(bindgen_c_flags)

$(obj)/netdev/bindings_generated.rs: $(src)/netdev/bindings.h $(src)/netdev/bindgen_parameters FORCE
	$(call if_changed_dep,netdev_bindgen)
