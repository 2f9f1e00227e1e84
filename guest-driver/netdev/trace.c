// SPDX-License-Identifier: GPL-2.0
/* The one place where the trace events of trace.h are defined. */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "trace.h"
