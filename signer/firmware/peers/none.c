/* The empty workload: the baseline of the others. */
#include "job.h"

bool job(void) { return true; }
