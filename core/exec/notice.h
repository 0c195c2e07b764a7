/* What a person should hear of a request that is planned for the first time.
   Nothing depends on it. */
#ifndef RP_EXEC_NOTICE_H
#define RP_EXEC_NOTICE_H

#include "graph/walk.h"

void rp_notice_request(rp_context *ctx, const rp_request *request,
                       const rp_walk *walk);

#endif
