/* What is measured: true if it did what it should. */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>

bool job(void);

#endif
