/* The measured workload: returns true on success. */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>

bool job(void);

#endif
