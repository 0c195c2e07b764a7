/* What a context does with its devices; rp_device itself is base/device.h. */
#ifndef RP_EXEC_DEVICE_H
#define RP_EXEC_DEVICE_H

#include "base/device.h"

/* The device in that slot; the default one for a slot that has none. */
rp_device *rp_device_at(const rp_context *ctx, int slot);
/* After everything that lies on them has been released. */
void rp_devices_close(rp_context *ctx);

#endif
